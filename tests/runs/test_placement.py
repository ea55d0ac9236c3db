import shutil

import jax
import numpy as np
import pytest

from fcn_jax import runs
from fcn_jax.runs import placement
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")


def config(tmp_path, **options):
  return tiny_runs.config(tmp_path, tmp_path, **options)


def test_all_devices_or_as_many_as_asked_for_share_a_batch(tmp_path):
  mesh = placement.make_mesh(config(tmp_path, batch_size=8))
  assert mesh.shape == {"data": 4, "rows": 1}
  mesh = placement.make_mesh(config(tmp_path, batch_size=6, num_devices=3))
  assert mesh.shape == {"data": 3, "rows": 1}


def test_groups_of_devices_share_rows(tmp_path):
  mesh = placement.make_mesh(config(tmp_path, batch_size=2, row_shards=2))
  assert mesh.shape == {"data": 2, "rows": 2}
  mesh = placement.make_mesh(config(tmp_path, batch_size=1, row_shards=4))
  assert mesh.shape == {"data": 1, "rows": 4}


@pytest.mark.parametrize(
  "options, message",
  [
    ({"row_shards": 8}, "row_shards is 8, but there are 4 devices"),
    ({"num_devices": 8}, "num_devices is 8, but there are 4 devices"),
    ({"num_devices": 3, "row_shards": 2}, "row_shards is 2, but there are 3"),
    ({"num_devices": 4, "row_shards": 2, "batch_size": 3}, "2 groups of dev"),
    ({"num_devices": 3}, "3 devices cannot share a batch of 4"),
    ({"batch_size": 6}, "batch_size of 4 or 8, or --num-devices 3"),
  ],
)
def test_devices_that_cannot_share_a_batch_are_counted(
  tmp_path, options, message
):
  with pytest.raises(ValueError, match=message):
    placement.make_mesh(config(tmp_path, **options))


@pytest.mark.parametrize(
  "options, message",
  [
    ({"crop_size": (72, 64)}, "crop_size is .72, 64.*such as 64 or 80"),
    ({"crop_size": None}, "give a crop_size"),
    ({"sampler": "hardest", "rate": 0.5}, "sampler is hardest; .* row_shards"),
    ({"region_loss": "lovasz_softmax"}, "region_loss is lovasz_softmax"),
    (
      {
        "patches": "random",
        "patch_size": (32, 32),
        "patches_per_image": 2,
      },
      "row_shards is 2; it must be 1 with patches",
    ),
  ],
)
def test_what_rows_cannot_serve_is_refused(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    config(tmp_path, **({"row_shards": 2} | options)).check()


def test_a_backbone_without_blocks_is_not_computed_again(tmp_path):
  with pytest.raises(ValueError, match="remat is blocks.*alexnet"):
    config(
      tmp_path, backbone="alexnet", normalization="none", remat="blocks"
    ).check()


@pytest.mark.long
def test_runs_resume_with_fsdp_and_without(
  run_copy, tmp_path, prepared_dir, finished_run
):
  shared = tmp_path / "shared"
  runs.train(tiny_runs.config(shared, prepared_dir, fsdp=True))
  expected = tiny_runs.losses_of(finished_run)
  found = tiny_runs.losses_of(shared)
  np.testing.assert_allclose(
    list(found.values()), list(expected.values()), rtol=1e-4
  )
  # Each goes on as the other began.
  more = {"steps": tiny_runs.STEPS + 1}
  both = shutil.copytree(shared, tmp_path / "whole")
  runs.train(tiny_runs.config(both, prepared_dir, **more))
  runs.train(tiny_runs.config(run_copy, prepared_dir, fsdp=True, **more))
  states = (tiny_runs.state_of(one) for one in (both, run_copy))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    *states,
  )


@pytest.mark.long
def test_a_run_by_rows_that_computes_again_has_the_same_losses(
  tmp_path, prepared_dir, finished_run
):
  workdir = tmp_path / "rows"
  runs.train(
    tiny_runs.config(workdir, prepared_dir, row_shards=2, remat="blocks")
  )
  np.testing.assert_allclose(
    list(tiny_runs.losses_of(workdir).values()),
    list(tiny_runs.losses_of(finished_run).values()),
    rtol=1e-4,
  )

"""The comparison of patches and whole images, on a tiny data set."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import patchwise
import patchwise_report
import pytest
from PIL import Image

import fcn_jax

TINY = (
  "shapes",
  "--dataset=shapes/tiny",
  "--picture-size=251",
  "--num-outputs",
  "1",
  "4",
  "--patch-batch=1",
  "--rounds=1",
  "--crop-size",
  "48",
  "64",
  "--patch-size",
  "16",
  "16",
  "--patches-per-image=24",
  "--patch-images=1",
  "--steps=3",
  "--num-seeds=1",
  "--warmup-steps=1",
  "--log-every=2",
)


def options(workdir, prepared_dir, *more):
  return [
    *TINY,
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def run(arguments):
  """Runs the script as a user does; returns what it printed."""
  script = subprocess.run(
    [sys.executable, patchwise.__file__, *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stderr
  return script.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """The work folder of a finished run, and what the script printed."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  return workdir, run(options(workdir, prepared_dir))


def read_summary(workdir):
  return json.loads((workdir / "summary.json").read_text())


def test_run_writes_all_it_promises(finished):
  workdir, printed = finished
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    *patchwise.CONTENTS,
  }
  assert (workdir / "table.md").read_text() in printed
  for name in ("patchwise_time.png", "patchwise_training.png"):
    assert (workdir / name).stat().st_size < 200_000
    with Image.open(workdir / name) as picture:
      assert min(picture.size) > 200
      assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_the_break_even_rate_is_the_ratio_of_the_times(finished):
  summary = read_summary(finished[0])
  assert summary["outputs"]["side"] == 2
  for name, work in summary["timing"].items():
    assert [row["outputs"] for row in work["patches"]] == [1, 4]
    even = summary["break_even"][name]
    patches_of_all = work["patches"][-1]["seconds"]
    assert np.isclose(
      even["rate"], work["one_pass"]["seconds"] / patches_of_all
    )
    assert np.isclose(even["outputs"], 4 * even["rate"])


def test_the_papers_break_even_rate_is_that_of_its_timings():
  even = patchwise_report.break_even(22e-3, 1.2e-3, 100)
  assert round(even["rate"], 2) == 0.18
  assert even == patchwise_report.break_even(
    *patchwise_report.PAPER_SECONDS["forward"], 100
  )


def test_patches_and_the_pass_give_the_same_loss_and_gradients(finished):
  timing = read_summary(finished[0])["timing"]
  assert set(timing) == set(patchwise.WORK)
  for work in timing.values():
    assert work["relative_difference"] < 1e-5


def test_an_output_sees_its_patch_and_nothing_else():
  model = fcn_jax.models.FCN(2, backbone="vgg_small", stride=32)
  outputs = patchwise.locate_outputs(model, 283)
  assert (outputs.side, outputs.stride) == (3, 32)
  row, column = 2, 1
  picture = jnp.full((1, 283, 283, 3), 255.0)
  # With kernels that are all positive, no unit within reach is idle.
  variables = jax.tree.map(
    lambda leaf: jnp.full(leaf.shape, 1 / max(1, np.prod(leaf.shape[:-1]))),
    jax.eval_shape(
      lambda key: model.init(key, picture, train=False), jax.random.key(0)
    ),
  )

  @jax.jit
  @jax.grad
  def influence(picture):
    scores = model.apply(variables, picture, train=False).scores
    return scores[0, outputs.first + row, outputs.first + column, 0]

  seen = np.argwhere(np.any(influence(picture)[0] != 0, axis=-1))
  for places, index in zip(seen.T, (row, column), strict=True):
    corner = outputs.stride * index
    assert corner <= places.min()
    assert places.max() < corner + outputs.patch_size
    assert np.ptp(places) + 1 == outputs.receptive_field


def test_arms_see_as_many_pixels_but_not_as_many_images(finished):
  arms = read_summary(finished[0])["arms"]
  images = {name: arm["images"] for name, arm in arms.items()}
  assert images == {
    "whole images": 3 * 2,
    "p=0.25": 3 * 8,
    "random patches": 3,
    "grid patches": 3,
    "balanced patches": 3,
  }
  for name, arm in arms.items():
    # Some pixels of scaled images are void, and some cells fall away.
    assert 0.6 * 6144 < arm["loss_pixels_per_step"] <= 6144 * 1.2, name
    assert arm["temporary_bytes"] > 0
    assert np.isfinite(arm["scores"][0]["mean_iu"])


def test_grid_patches_are_of_the_grid_and_all_different():
  height, width, size = 20, 26, (6, 9)
  numbers = jnp.arange(2 * height * width).reshape(2, height, width)
  batch = fcn_jax.types.Batch(jnp.stack([numbers] * 3, -1), numbers)
  cut = patchwise.grid_patches(
    jax.random.key(0), batch, num_patches=40, size=size
  )
  assert cut.labels.shape == (80, *size)
  corners = np.asarray(cut.labels)[:, 0, 0]
  assert len(set(corners)) == 80
  image, place = np.divmod(corners, height * width)
  assert list(image) == [0] * 40 + [1] * 40
  rows, columns = np.divmod(place, width)
  assert set(rows) <= {*range(0, 14, 2), 14}
  assert set(columns) <= {*range(0, 17, 3), 17}


def test_resuming_a_finished_run_only_writes_the_report_again(
  finished, prepared_dir
):
  workdir, _ = finished
  before = (workdir / "table.md").read_text()
  kept = [workdir / "timing.json", *(workdir / "arms").iterdir()]
  times = [path.stat().st_mtime_ns for path in kept]
  (workdir / "table.md").unlink()
  run(options(workdir, prepared_dir, "--resume"))
  assert (workdir / "table.md").read_text() == before
  assert times == [path.stat().st_mtime_ns for path in kept]


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--picture-size", "218"), "picture_size is 218"),
    (("--num-outputs", "5"), "num_outputs goes up to 5"),
    (("--num-outputs", "0", "1"), "num_outputs is (0, 1)"),
    (("--num-outputs", "2", "1"), "num_outputs is (2, 1)"),
    (("--num-outputs", "3", "--patch-batch", "2"), "multiples of it"),
    (("--num-outputs",), "num_outputs is ()"),
    (("--rounds", "0"), "rounds is 0"),
    (("--patch-size", "49", "16"), "smaller patch"),
    (("--patch-size", "0", "16"), "smaller patch"),
    (("--patch-images", "2", "--patches-per-image", "7"), "whole number"),
    (("--patches-per-image", "192", "--patch-images", "1"), "the grid has"),
    (("--rate", "0.3"), "choose another rate"),
    (("--rate", "0"), "above 0"),
    (("--rate", "0.125"), "data set has 12"),
    (("--steps", "0"), "steps is 0"),
    (("--warmup-steps", "3"), "warmup_steps is 3"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, capsys, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  with pytest.raises(SystemExit) as stopped:
    patchwise.main(options(tmp_path / "run", prepared_dir, *more))
  assert stopped.value.code == 1
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", sorted(patchwise.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = patchwise.PRESETS[preset]
  outputs = patchwise.check_options(config)
  # The paper's grid.
  assert (outputs.side, config.num_outputs[-1]) == (10, 100)
  whole, sampled = patchwise.count_images(config)
  assert (whole, sampled) == (5, 20)


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    patchwise.main(["shapes", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for field in dataclasses.fields(patchwise.Patchwise):
    assert f"--{field.name.replace('_', '-')}" in text

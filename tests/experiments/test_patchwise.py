"""The comparison of patches and whole images, on a tiny data set."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from experiments.common import study as study_lib
from experiments.patchwise import report
from experiments.patchwise import study
from experiments.patchwise import timing
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.helpers import studies

TINY = (
  "shapes",
  "--dataset=shapes/tiny",
  "--picture-size=251",
  *("--num-outputs", "1", "4"),
  "--patch-batch=1",
  "--rounds=1",
  *("--crop-size", "48", "64"),
  *("--patch-size", "16", "16"),
  "--patches-per-image=24",
  "--batch-size=1",
  "--num-devices=1",
  "--head-width=16",
  # A quarter to a half of the time to compile.
  *("--normalization=none", "--dropout-rate=0", "--optimizer=sgd"),
  "--steps=3",
  "--num-seeds=1",
  "--warmup-steps=1",
  "--log-every=2",
)
# Images a step.
VARIANTS = {
  "whole images": 2,
  "p=0.25": 8,
  "random patches": 1,
  "grid patches": 1,
  "balanced patches": 1,
}
TIMED = {
  "outputs": {
    name: {
      "one_pass": {"outputs": 4, "seconds": 0.3, "temporary_bytes": 5e6},
      "patches": [
        {"outputs": 1, "seconds": 0.25, "temporary_bytes": 2e6},
        {"outputs": 4, "seconds": 0.8, "temporary_bytes": 7e6},
      ],
      "relative_difference": 2e-7,
    }
    for name in timing.WORK
  },
  "step_bytes": dict.fromkeys(VARIANTS, 3e6),
}


def options(workdir, prepared_dir, *more):
  return [
    *TINY,
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


def read_summary(workdir):
  return json.loads((workdir / "summary.json").read_text())


# The plan.


@pytest.mark.slow
def test_variants_see_as_many_pixels_but_not_as_many_images(prepared_dir):
  config = studies.parse(study, options("run", prepared_dir))
  variants = study.plan(config)
  found = {
    variant.name: study_lib.run_config(config, variant, 0).data.batch_size
    for variant in variants
  }
  assert found == VARIANTS
  labels = jnp.zeros((1, 48, 64), jnp.int32)
  batch = fcn.types.Batch(jnp.zeros((1, 48, 64, 3), jnp.uint8), labels)
  for variant in variants:
    run_config = study_lib.run_config(config, variant, 0)
    cut = build.cut(run_config.patches, 6)
    if cut is not None:
      patches = cut(jax.random.key(0), batch)
      assert patches.labels.size == 2 * labels.size
  sampled = study_lib.run_config(config, variants[1], 0)
  assert (sampled.loss.sampler, sampled.loss.rate) == ("bernoulli", 0.25)


@pytest.mark.parametrize("preset", sorted(study.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = study.PRESETS[preset]
  config.check()
  outputs = study.locate_outputs(config)
  # The paper's grid.
  assert (outputs.side, config.num_outputs[-1]) == (10, 100)
  whole, sampled = study.count_images(config)
  assert (whole, sampled) == (5, 20)
  for variant in study.plan(config):
    study_lib.run_config(config, variant, 0).check()


# Timing.


@pytest.mark.long
def test_an_output_sees_its_patch_and_nothing_else():
  model = fcn.models.FCN(2, backbone="vgg_small", stride=32)
  outputs = timing.locate_outputs(model, 283)
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


def test_the_papers_break_even_rate_is_that_of_its_timings():
  even = report.break_even(22e-3, 1.2e-3, 100)
  assert round(even["rate"], 2) == 0.18
  assert even == report.break_even(*report.PAPER_SECONDS["forward"], 100)


# Options.


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
    (("--batch-size", "2", "--patches-per-image", "7"), "whole number"),
    (("--patches-per-image", "192", "--batch-size", "1"), "the grid has"),
    (("--rate", "0.3"), "choose another rate"),
    (("--rate", "0"), "above 0"),
    (("--rate", "0.125"), "data set has 12"),
    (("--num-devices", "3"), "3 devices cannot share"),
    (("--steps", "0"), "steps is 0"),
    (("--warmup-steps", "3"), "warmup_steps is 3"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, refused, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  arguments = options(tmp_path / "run", prepared_dir, *more)
  assert message in refused(study.main, arguments)
  assert list(tmp_path.iterdir()) == []


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    study.main(["shapes", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for name in config_lib.flat(study.PRESETS["shapes"][1]):
    assert f"--{name.replace('_', '-')}" in text


# The report, of timings and runs that were made up.


@pytest.fixture(scope="module")
def reported(tmp_path_factory, prepared_dir):
  """The folder of a study of which only the report was missing."""
  workdir = tmp_path_factory.mktemp("made_up") / "tiny"
  config = studies.parse(study, options(workdir, prepared_dir))
  study_lib.claim(config, experiment=study.NAME, contents=report.FILES)
  studies.end_runs(config, study.plan(config))
  records.write_json(workdir / report.TIMING_FILE, TIMED)
  kept = (workdir / report.TIMING_FILE).stat().st_mtime_ns
  before = studies.snapshot(workdir / "variants")
  study.main(options(workdir, prepared_dir))
  # What is there is not trained or timed again, nor touched.
  assert studies.snapshot(workdir / "variants") == before
  assert (workdir / report.TIMING_FILE).stat().st_mtime_ns == kept
  return workdir


def test_the_break_even_rate_is_the_ratio_of_the_times(reported):
  summary = read_summary(reported)
  assert summary["outputs"]["side"] == 2
  for name in timing.WORK:
    even = summary["break_even"][name]
    assert np.isclose(even["rate"], 0.3 / 0.8)
    assert np.isclose(even["outputs"], 4 * 0.3 / 0.8)
    assert np.isclose(even["patch_seconds"], 0.2)


def test_tables_have_the_timings_and_the_figures_of_the_variants(reported):
  table = (reported / "table.md").read_text()
  rows = studies.table_rows(table)
  # Milliseconds an output: by patches, and by the pass.
  assert rows["1"] == ["250.00", "300.00"] * 2
  assert rows["4"] == ["200.00", "75.00"] * 2
  for name in timing.WORK:
    assert rows[name] == ["300.0", "200.0", "1.5", "0.375", "5.0", "7.0"]
    paper = rows[f"{name}, AlexNet in CVPR 2015"]
    assert paper[3] in ("0.183", "0.164")
  summary = read_summary(reported)["variants"]
  assert tuple(summary) == tuple(VARIANTS)
  training = studies.table_rows(table[: table.index("| IU of")])
  for name, variant in summary.items():
    size, (scores,) = VARIANTS[name], variant["scores"]
    assert training[name] == [
      str(size),
      str(3 * size),
      f"{(8 + 10) / 3:,.0f}",
      "1.5",
      "3",
      *(
        f"{scores[score]:.3f}"
        for score in ("mean_iu", "mean_accuracy", "pixel_accuracy")
      ),
    ]
    assert rows[name][0] == f"{scores['class_iu']['background']:.2f}"
  # 16 pixels are less than the receptive field.
  assert "the network sees padding" in table
  assert "each block of 8x8 pixels" in table


# Timed and trained, as users do it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """The folder of a finished study, and what the command printed."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  return workdir, studies.run(study, options(workdir, prepared_dir)).stdout


@pytest.mark.long
def test_a_study_writes_all_it_promises(finished):
  workdir, printed = finished
  assert {path.name for path in workdir.iterdir()} == {
    folder.CONFIG_FILE,
    study_lib.VARIANTS,
    *report.FILES,
  }
  assert (workdir / "table.md").read_text() in printed
  for name in ("patchwise_time.png", "patchwise_training.png"):
    assert (workdir / name).stat().st_size < 200_000
    with Image.open(workdir / name) as picture:
      assert min(picture.size) > 200
      assert len(picture.convert("RGB").getcolors(10**6)) > 20


@pytest.mark.long
def test_patches_and_the_pass_give_the_same_loss_and_gradients(finished):
  timed = read_summary(finished[0])["timing"]
  assert set(timed) == set(timing.WORK)
  for work in timed.values():
    assert work["relative_difference"] < 1e-5
    assert [one["outputs"] for one in work["patches"]] == [1, 4]


@pytest.mark.long
def test_variants_had_as_many_pixels_in_the_loss(finished):
  summary = read_summary(finished[0])
  for name, variant in summary["variants"].items():
    assert variant["images"] == 3 * VARIANTS[name]
    # Some pixels of scaled images are void, and some cells fall away.
    assert 0.6 * 6144 < variant["loss_pixels_per_step"] <= 6144 * 1.2, name
    assert summary["step_bytes"][name] > 0
    assert np.isfinite(variant["scores"][0]["mean_iu"])


@pytest.mark.long
def test_going_on_with_a_finished_study_only_writes_the_report_again(
  finished, prepared_dir, untouched
):
  workdir, _ = finished
  before = (workdir / "table.md").read_text()
  timed = (workdir / "timing.json").stat().st_mtime_ns
  untouched(workdir / "variants")
  (workdir / "table.md").unlink()
  study.main(options(workdir, prepared_dir))
  assert (workdir / "table.md").read_text() == before
  assert (workdir / "timing.json").stat().st_mtime_ns == timed
  untouched(workdir / "variants")

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import fcn_jax as fcn
from experiments.common import study as study_lib
from experiments.gradient_noise import estimates
from experiments.gradient_noise import measuring
from experiments.gradient_noise import report
from experiments.gradient_noise import study
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import training
from tests.helpers import studies


def options(workdir, prepared_dir, *more):
  return [
    "shapes",
    "--dataset=shapes/tiny",
    *("--crop-size", "32", "32"),
    "--head-width=16",
    # A quarter to a half of the time to compile.
    *("--normalization=none", "--dropout-rate=0", "--optimizer=sgd"),
    "--steps=3",
    *("--measure-at", "1", "2"),
    "--warmup-steps=1",
    "--batch-size=2",
    "--num-devices=2",
    "--num-images=4",
    "--num-directions=2",
    "--num-masks=2",
    "--shares=0.25",
    *("--rates", "1", "0.25"),
    "--rounds=1",
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


# What is measured.


@pytest.mark.long
def test_projections_are_products_of_pixel_gradients_and_directions():
  model = fcn.models.FCN(
    3, backbone="vgg_small", head_width=8, dropout_rate=0.0
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (1, 16, 16, 3)), jnp.uint8)
  labels = jnp.asarray(rng.integers(0, 3, (1, 16, 16)), jnp.int32)
  labels = labels.at[0, 0].set(fcn.types.IGNORE_LABEL)
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: model.init(key, images, train=False))
  params = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype),
    dict(shapes)["params"],
  )
  variables = {"params": params}
  directions = measuring.random_directions(key, params, 2)
  losses, found = measuring.project_gradients(
    model, variables, fcn.types.Batch(images, labels), directions
  )
  assert found.shape == (2, 1, 16, 16)
  np.testing.assert_array_equal(found[:, 0, 0], 0)

  # Compiled as quickly as XLA can.
  @functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
  )
  def gradient_at(params, row, column):
    def loss_of(params):
      score_map = model.apply({"params": params}, images, train=False)
      logits = fcn.upsampling.to_pixels(score_map)
      losses = fcn.losses.pixel_cross_entropy(logits, labels)
      return losses[0, row, column]

    return jax.value_and_grad(loss_of)(params)

  for row, column in ((1, 0), (7, 11), (15, 15)):
    loss, gradient = gradient_at(params, row, column)
    np.testing.assert_allclose(losses[0, row, column], loss, rtol=1e-4)
    for i in range(2):
      products = jax.tree.map(
        lambda g, d, i=i: np.vdot(g, d[i]), gradient, directions
      )
      np.testing.assert_allclose(
        found[i, 0, row, column],
        sum(jax.tree.leaves(products)),
        rtol=1e-3,
        atol=1e-3,
      )


def test_the_noise_is_split_into_that_of_masks_and_that_of_images():
  rng = np.random.default_rng(0)
  num_masks, num_directions, num_images = 40, 200, 60
  signal = rng.normal(0, 2.0, (1, num_directions, 1))
  of_images = rng.normal(0, 1.0, (1, num_directions, num_images))
  of_masks = rng.normal(0, 3.0, (num_masks, num_directions, num_images))
  sums = 7.0 * (signal + of_images + of_masks)
  found = estimates.noise(estimates.split(sums, 7.0))
  np.testing.assert_allclose(found["masks"], 9.0, rtol=0.05)
  np.testing.assert_allclose(found["images"], 1.0, rtol=0.1)
  np.testing.assert_allclose(found["signal"], np.mean(signal**2), rtol=0.05)
  np.testing.assert_allclose(
    found["noise"], 10.0 / np.mean(signal**2), rtol=0.1
  )


def test_without_a_signal_or_a_pixel_there_is_no_noise_but_nan():
  rng = np.random.default_rng(0)
  sums = rng.normal(0, 1.0, (4, 300, 6))
  sums -= sums.mean(axis=-1, keepdims=True)
  parts = estimates.split(sums, 1.0)
  found = estimates.noise(parts)
  assert found["signal"] < 0 and np.isnan(found["noise"])
  known = estimates.noise(parts, np.full(300, 0.5))
  np.testing.assert_allclose(
    known["noise"], (known["masks"] + known["images"]) / 0.5
  )
  empty = estimates.noise(estimates.split(np.zeros((4, 3, 6)), 0))
  assert all(np.isnan(value) for value in empty.values())


def test_the_error_is_the_spread_over_other_directions():
  rng = np.random.default_rng(0)
  draws, num_directions = 150, 40
  above = rng.exponential(3.0, (draws, num_directions))
  below = 1 + rng.exponential(1.0, (draws, num_directions))

  def ratio(a, b):
    return np.array([a / b, a])

  found = [
    estimates.with_error(ratio, *pair)
    for pair in zip(above, below, strict=True)
  ]
  spread = np.std([value for value, _ in found], axis=0)
  typical = np.mean([error for _, error in found], axis=0)
  np.testing.assert_allclose(typical, spread, rtol=0.2)
  # That of a mean is known exactly.
  _, error = estimates.with_error(lambda a: a, above[0])
  expected = np.std(above[0], ddof=1) / np.sqrt(num_directions)
  np.testing.assert_allclose(error, expected)
  value, error = estimates.with_error(lambda a: a, above[0][:1])
  assert value == above[0][0] and np.isnan(error)


def test_seeds_have_the_larger_of_two_errors():
  errors = [3.0, 4.0, 5.0]
  alike = report.over_seeds([1.0, 1.1, 0.9], errors)
  np.testing.assert_allclose(alike, [1.0, np.sqrt(50 / 3 / 3)])
  apart = report.over_seeds([0.0, 30.0, 60.0], errors)
  np.testing.assert_allclose(apart, [30.0, 30 / np.sqrt(3)])
  np.testing.assert_allclose(report.over_seeds([2.0], [0.5]), [2.0, 0.5])
  # A single direction knows no error, two seeds do.
  nan = float("nan")
  np.testing.assert_allclose(
    report.over_seeds([1.0, 3.0], [nan, nan]), [2.0, 1.0]
  )
  assert report.over_seeds([1.0], [nan]).text(1) == "1.0"


def test_the_correlation_is_that_of_a_loop_over_pairs():
  rng = np.random.default_rng(0)
  projections = rng.normal(size=(2, 3, 5, 6))
  valid = rng.random((3, 5, 6)) < 0.7
  projections = np.where(valid, projections, 0.0)
  found = estimates.covariance_by_distance(projections, valid, 4)
  mean = projections[:, valid].mean(axis=1)
  sums, counts = np.zeros((2, 9)), np.zeros(9)
  for image in range(3):
    pixels = np.argwhere(valid[image])
    for a in pixels:
      for b in pixels:
        distance = int(np.rint(np.hypot(*(a - b))))
        counts[distance] += 1
        for i in range(2):
          one = projections[i, image, *a] - mean[i]
          other = projections[i, image, *b] - mean[i]
          sums[i, distance] += one * other
  expected = (sums / np.maximum(counts, 1))[:, :5]
  np.testing.assert_allclose(found, expected, atol=1e-10)


def test_the_correlation_length_lies_between_two_distances():
  length = estimates.correlation_length(4.0 * np.exp(-np.arange(50) / 10.5))
  np.testing.assert_allclose(length, 10.5, atol=0.02)
  assert np.isnan(estimates.correlation_length(np.array([1.0, 0.9, 0.8])))


def test_rates_are_compared_at_equal_images_terms_and_time():
  seeds = [
    {
      "rates": {
        "pixels": {
          "1.0": {"ratio": 1.0, "ratio_error": 0.0},
          "0.25": {"ratio": ratio, "ratio_error": 0.1},
        }
      }
    }
    for ratio in (1.0, 1.5)
  ]
  seconds = {"pixels": {"1.0": 0.2, "0.25": 0.1}}
  found = report.rates_table(seeds, seconds)
  assert found[0] == {
    "sampler": "pixels", "rate": 1.0, "seconds": 0.2, "images": 1.0,
    "images_error": 0.0, "terms": 1.0, "time": 1.0,
  }  # fmt: skip
  np.testing.assert_allclose(found[1]["images_error"], 0.25)
  np.testing.assert_allclose(
    [found[1][key] for key in ("images", "terms", "time")],
    [1.25, 1.25 / 4, 1.25 / 2],
  )


def test_the_smallest_rate_adds_a_tenth_of_the_noise_at_most():
  ratios = {
    "places": {1.0: 1.0, 0.25: 1.01, 0.05: 1.09},
    "blocks": {1.0: 1.0, 0.25: 1.11, 0.05: 2.0},
    "pixels": {1.0: 1.0, 0.25: float("nan"), 0.05: 1.2},
  }
  compared = [
    {"sampler": sampler, "rate": rate, "images": ratio}
    for sampler, by_rate in ratios.items()
    for rate, ratio in by_rate.items()
  ]
  assert report.smallest_rates(compared) == {
    "places": 0.05,
    "blocks": 1.0,
    "pixels": 1.0,
  }


def test_the_images_measured_are_not_those_of_the_first_steps(prepared_dir):
  config = studies.parse(study, options("run", prepared_dir))
  dataset = batches.load_split(config.data, "train")
  measured = study.measured_batches(config, dataset, 0)
  assert [batch.labels.shape for batch in measured] == [(2, 32, 32)] * 2
  run_config = study_lib.run_config(config, study.VARIANT, 0)
  trained_on = batches.training_batches(run_config, dataset).starting_at(0)
  first = next(trained_on)
  trained_on.close()
  assert np.any(first.images != measured[0].images)
  other = study.measured_batches(config, dataset, 1)
  assert np.any(other[0].images != measured[0].images)
  again = study.measured_batches(config, dataset, 0)
  for one, other in zip(measured, again, strict=True):
    np.testing.assert_array_equal(one.images, other.images)


# The study, with measurements that were made up.


def made_up_noise(samplers):
  noise = {"masks": 1.0, "images": 4.0, "noise": 10.0, "noise_error": 2.0}
  lost = {**noise, "noise": float("nan"), "noise_error": float("nan")}
  return {
    "whole": noise,
    "pixels": 900.0,
    "independent_pixels": 12.5,
    "independent_pixels_error": 1.5,
    "correlation": [1.0] + [0.5] * 16,
    "correlation_error": [0.0] + [0.25] * 16,
    "correlation_length": 6.5,
    "correlation_length_error": 0.4,
    "loss": 1.25,
    "samplers": {
      name: [{"share": 0.25, **(lost if name == "hardest" else noise)}]
      for name in samplers
    },
    "rates": {
      "pixels": {
        "1.0": {"ratio": 1.0, "ratio_error": 0.0},
        "0.25": {"ratio": 1.25, "ratio_error": 0.125},
      }
    },
  }


@pytest.fixture
def measured(monkeypatch):
  """Makes up what is measured; the steps at which it was."""
  steps = []

  def measure(config, model, state, images, samplers, progress):
    del config, model, images, progress
    steps.append(int(state.step))
    return made_up_noise(samplers)

  monkeypatch.setattr(measuring, "measure", measure)
  seconds = {"pixels": {"1.0": 0.2, "0.25": 0.1}}
  monkeypatch.setattr(measuring, "time_steps", lambda *_: seconds)
  return steps


def make_ended(workdir, prepared_dir, *more):
  """A study of which only the report is missing."""
  config = studies.parse(study, options(workdir, prepared_dir, *more))
  study_lib.claim(config, experiment=study.NAME, contents=report.CONTENTS)
  studies.end_runs(config, [study.VARIANT])
  (workdir / "noise").mkdir()
  for seed in range(config.num_seeds):
    for step in config.measure_at:
      records.write_json(
        study.noise_file(config, step, seed),
        made_up_noise(["pixels", "hardest"]),
      )
  seconds = {"pixels": {"1.0": 0.2, "0.25": 0.1}}
  records.write_json(workdir / "timing.json", seconds)
  return config


@pytest.mark.parametrize(
  "lost, title",
  [
    ((), "Samplers, after 2 steps"),
    ((2,), "Samplers, after 1 steps (no signal later)"),
    ((1, 2), "Samplers, after 2 steps"),
  ],
)
def test_samplers_are_drawn_at_the_last_step_with_a_signal(
  tmp_path, prepared_dir, measured, saved_figures, lost, title
):
  workdir = tmp_path / "run"
  config = make_ended(workdir, prepared_dir)
  for step in lost:
    found = made_up_noise(["pixels", "hardest"])
    found["whole"] = {**found["whole"], "noise": float("nan")}
    records.write_json(study.noise_file(config, step, 0), found)
  study.main(options(workdir, prepared_dir))
  (figure,) = saved_figures
  assert figure.axes[0].get_title() == title


def test_the_report_agrees_with_what_was_measured(
  tmp_path, prepared_dir, measured, capsys, untouched
):
  workdir, seeds = tmp_path / "run", ("--num-seeds", "4")
  make_ended(workdir, prepared_dir, *seeds)
  untouched(workdir / "variants")
  untouched(workdir / "noise")
  study.main(options(workdir, prepared_dir, *seeds))
  # What is there is not measured or trained again, nor touched.
  assert measured == []
  untouched(workdir / "variants")
  untouched(workdir / "noise")
  table = (workdir / "table.md").read_text(encoding="utf-8")
  assert table in capsys.readouterr().out
  for step in (1, 2):
    assert f"After {step} steps (loss 1.25 nats a pixel)" in table
  # As much time at p = 0.25: 5 / 4 of the variance, 1 / 2 of the time.
  assert "same time: pixels at p = 0.25, a batch of about 12 images" in table
  assert "at most 10% more noise: pixels 1." in table
  assert "correlate by 1 / e at a distance of 6.5 ± 0.2 pixels" in table
  assert "Seeds: 4." in table
  rows = studies.table_rows(table)
  assert "| pixels | 10.0 ± 1.0 (25.0%) |" in table
  assert rows["hardest"] == ["no signal (25.0%)"]
  ratio = "1.250 ± 0.062"
  assert rows["pixels"] == ["0.25", "100.0", ratio, "0.312", "0.625"]
  assert rows["correlation"] == ["0.50 ± 0.12"] * 5
  summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
  assert set(summary["measured"]) == {"1", "2"}
  assert summary["measured"]["2"]["suggested_rate"] == 0.25
  assert summary["seconds_an_image"]["pixels"] == {"1.0": 0.2, "0.25": 0.1}


def test_a_noise_without_a_signal_is_no_number(tmp_path):
  noise = made_up_noise(["pixels"])
  noise["whole"] |= {"noise": float("nan"), "noise_error": float("nan")}
  summary = {
    "measured": {"2": {"seeds": [noise]}},
    "seconds_an_image": {"pixels": {"1.0": 0.2, "0.25": 0.1}},
    "seeds": 1,
    "device": "a device",
    "cores": 2,
    "jax": "0",
  }
  table = report.write(tmp_path, summary, "a network")
  assert "One whole image: noise too large to be measured with so few" in table
  assert "pixels at p = 0.25, and too few images to suggest a batch." in table
  assert "nan" not in table


def test_a_measurement_that_was_lost_is_named(
  tmp_path, prepared_dir, measured, refused
):
  config = make_ended(tmp_path / "run", prepared_dir)
  study.noise_file(config, 1, 0).unlink()
  error = refused(study.main, options(config.run.workdir, prepared_dir))
  assert "seed0-step1.json is not there" in error and "--overwrite" in error
  assert measured == []


def test_a_step_is_measured_only_if_that_is_missing(
  tmp_path, prepared_dir, measured, monkeypatch
):
  config = make_ended(tmp_path / "run", prepared_dir)
  study.noise_file(config, 2, 0).unlink()
  before = study.noise_file(config, 1, 0).stat().st_mtime_ns

  def reach_both(prepared):
    for step, call in prepared.items():
      call(fcn.train.TrainState(jnp.array(step), {}, {}, ()))

  monkeypatch.setattr(
    training, "prepare", lambda run_config, *, at_steps: at_steps
  )
  monkeypatch.setattr(training, "run", reach_both)
  study.train_and_measure(config, [], 6, 0)
  assert measured == [2]
  assert study.noise_file(config, 1, 0).stat().st_mtime_ns == before
  assert study.noise_file(config, 2, 0).exists()


@pytest.mark.parametrize(("start", "expected"), [(0, [0, 2]), (1, [2])])
def test_step_0_is_measured_before_the_first_step_and_never_later(
  start, expected, tmp_path, prepared_dir, measured, monkeypatch
):
  config = studies.parse(
    study, options(tmp_path / "run", prepared_dir, "--measure-at", "0", "2")
  )
  study_lib.claim(config, experiment=study.NAME, contents=report.CONTENTS)

  def prepare(run_config, *, at_steps):
    state = fcn.train.TrainState(jnp.array(start), {}, {}, ())
    return types.SimpleNamespace(state=state, at_steps=at_steps)

  def run(prepared):
    for step, call in prepared.at_steps.items():
      call(prepared.state._replace(step=jnp.array(step)))

  monkeypatch.setattr(training, "prepare", prepare)
  monkeypatch.setattr(training, "run", run)
  study.train_and_measure(config, [], 6, 0)
  assert measured == expected


@pytest.mark.long
def test_an_interrupted_study_measures_only_what_is_missing(
  tmp_path, prepared_dir, measured, monkeypatch
):
  workdir, made_up = tmp_path / "run", measuring.measure

  def interrupted_at_2(*arguments):
    found = made_up(*arguments)
    if measured[-1] == 2:
      raise KeyboardInterrupt
    return found

  monkeypatch.setattr(measuring, "measure", interrupted_at_2)
  # The optimizer's schedule mixes integers with floats.
  with jax.numpy_dtype_promotion("standard"):
    with pytest.raises(SystemExit, match="the same command continues"):
      study.main(options(workdir, prepared_dir))
    assert measured == [1, 2]
    assert [path.name for path in (workdir / "noise").iterdir()] == [
      "seed0-step1.json"
    ]
    monkeypatch.setattr(measuring, "measure", made_up)
    study.main(options(workdir, prepared_dir))
    # Step 2 was saved before it was measured.
    assert measured == [1, 2, 2]
    study.main(options(workdir, prepared_dir))
  assert measured == [1, 2, 2]
  starts = records.read_json_lines(
    workdir / "variants" / "whole_images-seed0" / "starts.jsonl"
  )
  assert [start["from_step"] for start in starts] == [0, 2]


# Options.


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--measure-at", "5", "5"), "rising from 0 or more"),
    (("--measure-at", "2", "1"), "rising from 0 or more"),
    (("--measure-at", "-1"), "rising from 0 or more"),
    (("--measure-at",), "rising from 0 or more"),
    (("--measure-at", "202"), "up to the 201 steps"),
    (("--rates", "0.5"), "with 1 in it"),
    (("--num-images", "5"), "a multiple of batch_size = 4"),
    (("--num-masks", "1"), "at least 2"),
    (("--num-directions", "0"), "num_directions is 0"),
    (("--num-seeds", "0"), "num_seeds is 0"),
    (("--shares", "0"), "sampling rate is 0"),
    (("--shares", "0.00001"), "large enough for a pixel"),
    (("--shares",), "shares is ()"),
  ],
)
def test_options_out_of_range_are_errors_before_anything_is_written(
  more, message, tmp_path, refused
):
  workdir = tmp_path / "run"
  arguments = ["shapes", "--workdir", str(workdir), *more]
  assert message in refused(study.main, arguments)
  assert not workdir.exists()


def test_other_options_are_refused_with_their_names(
  tmp_path, prepared_dir, refused, untouched
):
  config = make_ended(tmp_path / "run", prepared_dir)
  untouched(config.run.workdir)
  arguments = options(config.run.workdir, prepared_dir, "--measure-at", "2")
  assert "measure_at ((1, 2) there, (2,) now)" in refused(study.main, arguments)
  untouched(config.run.workdir)


@pytest.mark.parametrize("preset", sorted(study.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = study.PRESETS[preset]
  config.check()
  study_lib.run_config(config, study.VARIANT, 0).check()
  # The learning rate is 0 at the last step.
  assert config.measure_at[-1] < config.optimizer.steps


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    study.main(["shapes", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for name in config_lib.flat(study.PRESETS["shapes"][1]):
    assert f"--{name.replace('_', '-')}" in text


# Measured, as users do it.


@pytest.mark.long
def test_a_study_measures_and_draws(tmp_path, prepared_dir):
  workdir = tmp_path / "run"
  arguments = options(workdir, prepared_dir, "--measure-at", "0", "2")
  assert "Seeds: 1." in studies.run(study, arguments).stdout
  first = studies.snapshot(workdir / "noise")
  printed = studies.run(study, [*arguments, "--num-seeds", "2"]).stdout
  assert "Seeds: 2." in printed
  # The first seed is not measured again.
  assert first.items() <= studies.snapshot(workdir / "noise").items()
  assert "After 0 steps" in printed and "| class-balanced |" in printed
  assert (workdir / "table.md").read_text(encoding="utf-8") in printed
  assert {path.name for path in workdir.iterdir()} == {
    folder.CONFIG_FILE,
    study_lib.VARIANTS,
    *report.CONTENTS,
  }
  summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
  one, other = summary["measured"]["2"]["seeds"]
  assert one["loss"] != other["loss"]
  assert one["correlation"][0] == 1.0
  assert 0.1 < one["samplers"]["pixels"][0]["share"] < 0.4
  assert set(summary["seconds_an_image"]["places"]) == {"1.0", "0.25"}
  with PIL.Image.open(workdir / "gradient_noise.png") as picture:
    assert min(picture.size) > 300

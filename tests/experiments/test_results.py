"""What the runs of a study found, as numbers, table cells and curves."""

import json

import numpy as np
import pytest

from experiments.common import results
from experiments.common import study as study_lib
from fcn_jax import visualize
from fcn_jax.data.datasets import shapes
from fcn_jax.runs import records
from tests.helpers import studies

VARIANT = study_lib.Variant("whole images", {"batch_size": 4})


@pytest.fixture
def config(tmp_path):
  return study_lib.Study.make("x", workdir=tmp_path, steps=10, warmup_steps=1)


def end_runs(config, confusions, losses):
  runs = [study_lib.run_config(config, VARIANT, seed) for seed in range(2)]
  for run, confusion, of_steps in zip(runs, confusions, losses, strict=True):
    studies.end_run(run, confusion, losses=of_steps)
  (seeds,) = results.read(config, [VARIANT]).values()
  return seeds


def random_confusions():
  generator = np.random.default_rng(0)
  return list(generator.integers(1, 100, (2, 6, 6)))


def test_a_summary_agrees_with_the_records_of_the_runs(config):
  confusions = random_confusions()
  seeds = end_runs(config, confusions, [{4: 3.0, 10: 2.0}, {4: 5.0, 10: 1.0}])
  summary = results.summarize(seeds)
  assert summary["iterations"] == 10
  assert summary["images_per_step"] == 4
  assert summary["images"] == 40
  # The records made up have 7 + step pixels.
  assert summary["loss_pixels_per_step"] == (11 + 17) / 10
  assert summary["seconds"] == [5.0, 5.0]
  assert summary["final_loss"] == [2.0, 1.0]
  for scores, confusion in zip(summary["scores"], confusions, strict=True):
    accuracy = np.trace(confusion) / confusion.sum()
    assert np.isclose(scores["pixel_accuracy"], accuracy)
    disk = confusion[1].sum() + confusion[:, 1].sum() - confusion[1, 1]
    assert np.isclose(scores["class_iu"]["disk"], confusion[1, 1] / disk)


def test_scores_are_those_after_the_last_step(config):
  run = study_lib.run_config(config.replace(num_seeds=1), VARIANT, 0)
  first, last = random_confusions()
  studies.end_run(run.replace(steps=5), first, losses={5: 2.0})
  studies.end_run(run, last, losses={10: 1.0})
  (seeds,) = results.read(config.replace(num_seeds=1), [VARIANT]).values()
  accuracy = np.trace(last) / last.sum()
  assert np.isclose(seeds[0].scores["pixel_accuracy"], accuracy)


def test_steps_that_were_repeated_count_once(config):
  config = config.replace(num_seeds=1)
  run = study_lib.run_config(config, VARIANT, 0)
  studies.end_run(run, random_confusions()[0], losses={4: 9.0, 8: 9.0})
  start = {"kind": "start", "start": 1, "step": 4}
  records.append_json_line(run.run.workdir / "metrics.jsonl", start)
  studies.end_run(run, random_confusions()[1], losses={8: 3.0, 10: 2.0})
  (seeds,) = results.read(config, [VARIANT]).values()
  assert [r["loss"] for r in seeds[0].training] == [9.0, 3.0, 2.0]
  assert results.summarize(seeds)["loss_pixels_per_step"] == 4.3


def test_a_class_that_is_not_there_has_no_iu_and_not_that_of_0(config):
  confusions = random_confusions()
  for confusion in confusions:
    confusion[5] = confusion[:, 5] = 0
  seeds = end_runs(config, confusions, [{10: 1.0}] * 2)
  summary = results.summarize(seeds)
  for scores in summary["scores"]:
    assert np.isnan(scores["class_iu"]["star"])
    assert np.isfinite(scores["mean_iu"])
  lines = results.class_table({"x": summary["scores"]}, shapes.CLASS_NAMES)
  assert studies.table_rows("\n".join(lines))["x"][-1] == "nan"
  # Other programs read summaries: NaN is no JSON.
  records.write_json(config.run.workdir / "summary.json", summary)
  there = json.loads((config.run.workdir / "summary.json").read_text())
  assert there["scores"][0]["class_iu"]["star"] is None


def test_figures_are_read_as_they_were_written(tmp_path):
  figures = {"a": [{"noise": float("nan"), "share": 0.25}], "b": "cpu"}
  records.write_json(tmp_path / "figures.json", figures)
  found = results.read_figures(tmp_path / "figures.json")
  assert np.isnan(found["a"][0].pop("noise"))
  assert found == {"a": [{"share": 0.25}], "b": "cpu"}


def test_curves_are_those_of_the_records(config):
  losses = [{4: 3.0, 10: 2.0}, {4: 5.0, 10: 1.0}]
  curves = results.curves(end_runs(config, random_confusions(), losses))
  np.testing.assert_array_equal(curves.iterations, [4, 10])
  np.testing.assert_array_equal(curves.images, [16, 40])
  np.testing.assert_array_equal(curves.seconds, [[2.0, 5.0]] * 2)
  np.testing.assert_array_equal(curves.losses, [[3.0, 2.0], [5.0, 1.0]])


def test_seeds_may_have_recorded_other_steps(config, tmp_path):
  # As when a study went on with another --log-every.
  losses = [{2: 4.0, 4: 3.0, 10: 2.0}, {4: 5.0, 8: 4.0, 10: 1.0}]
  curves = results.curves(end_runs(config, random_confusions(), losses))
  np.testing.assert_array_equal(curves.iterations, [4, 10])
  np.testing.assert_array_equal(curves.losses, [[3.0, 2.0], [5.0, 1.0]])
  visualize.loss_curves({"x": curves}, "x", path=tmp_path / "curves.png")


def test_a_step_without_a_pixel_in_the_loss_is_a_gap_in_the_curve(config):
  nan = float("nan")
  losses = [{4: nan, 10: 2.0}] * 2
  curves = results.curves(end_runs(config, random_confusions(), losses))
  np.testing.assert_array_equal(curves.losses, [[nan, 2.0]] * 2)


def test_cells_have_the_mean_and_the_range_of_the_seeds():
  assert results.spread([0.25], 3) == "0.250"
  assert results.spread([0.25, 0.75], 1) == "0.5 (0.2-0.8)"
  scores = [{"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 0.5}]
  cells = results.score_cells(scores, "b", "a")
  assert cells == "0.750 (0.500-1.000) | 0.500 (0.500-0.500)"


def test_tables_have_the_mean_iu_of_each_class():
  scores = {
    "one": [{"class_iu": {"a": 0.5, "b": 1.0}}],
    "two": [{"class_iu": {"a": x, "b": 0.25}} for x in (0.0, 0.5)],
  }
  rows = studies.table_rows("\n".join(results.class_table(scores, ("a", "b"))))
  assert rows["IU of"] == ["a", "b"]
  assert rows["one"] == ["0.50", "1.00"]
  assert rows["two"] == ["0.25", "0.25"]


def test_summaries_say_where_the_figures_are_from(config):
  where = results.where()
  assert set(where) == {"device", "cores", "jax", "commit"}
  note = results.note(config, {"evaluation_images": 5, **where})
  assert "2 seed(s)" in note and "5 images" in note
  assert where["device"] in note and where["jax"] in note

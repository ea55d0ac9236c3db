"""The study of membranes, on made-up slices."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.common import study as study_lib
from experiments.membranes import folds
from experiments.membranes import report
from experiments.membranes import study
from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.helpers import studies

NUM_SLICES = 10


@pytest.fixture
def slices(tmp_path):
  """Slices of 64x64 with a cross of membranes."""
  rng = np.random.default_rng(0)
  mask = np.full((64, 64), 255, np.uint8)
  mask[30:34] = mask[:, 30:34] = 0
  for kind in ("images", "masks"):
    (tmp_path / "slices" / kind).mkdir(parents=True)
  for number in range(NUM_SLICES):
    noise = rng.integers(0, 60, mask.shape, dtype=np.uint8)
    Image.fromarray(mask // 2 + noise).save(
      tmp_path / "slices" / "images" / f"{number:02d}.png"
    )
    Image.fromarray(mask).save(
      tmp_path / "slices" / "masks" / f"{number:02d}.png"
    )
  return tmp_path / "slices"


@pytest.mark.parametrize("fold", range(folds.NUM_FOLDS))
def test_a_fold_is_a_contiguous_fifth(slices, tmp_path, fold):
  folds.make(slices, tmp_path / "fold", fold)
  held_out = sorted(
    int(file.stem) for file in (tmp_path / "fold/validation/images").iterdir()
  )
  assert held_out == [2 * fold, 2 * fold + 1]
  for kind in ("images", "masks"):
    names = [file.name for file in (tmp_path / "fold/train" / kind).iterdir()]
    assert len(names) == NUM_SLICES - 2
    assert not {f"{number:02d}.png" for number in held_out} & {*names}


def test_missing_slices_are_named(monkeypatch, tmp_path):
  monkeypatch.delenv(folds.ENVIRONMENT, raising=False)
  with pytest.raises(ValueError, match="environment variable MEMBRANES_DIR"):
    folds.find(None)
  with pytest.raises(ValueError, match="has no folder images"):
    folds.find(tmp_path)


def options(slices, workdir, *more):
  return [
    "compare",
    f"--data-dir={slices}",
    f"--workdir={workdir}",
    f"--prepared-dir={workdir.parent / 'prepared'}",
    "--crop-size=48",
    "--batch-size=2",
    "--head-width=16",
    "--patch-size=17",
    "--patches-per-image=4",
    "--patch-steps=4",
    "--whole-steps=8",
    "--short-steps=4",
    *("--steps=8", "--validate-every=4", "--warmup-steps=1", "--log-every=1"),
    "--num-devices=1",
    *more,
  ]


def test_unknown_variants_and_folds_are_named(slices, tmp_path, capsys):
  for more, message in (
    (
      ("--variants=crop",),
      "no variant 'crop': choose from patches, balanced; patches, random; ",
    ),
    (("--folds=5",), "folds is (5,); it must be different numbers in 0..4"),
  ):
    with pytest.raises(SystemExit):
      study.main(options(slices, tmp_path / "run", *more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_variants_and_folds_may_be_added(slices, tmp_path):
  def parse(*more):
    return studies.parse(study, options(slices, tmp_path / "run", *more))

  own = {"experiment": "membranes", "contents": ("folds",)}
  first = parse("--folds", "4", "1", "--variants", "crops", "best")
  study_lib.claim(first, **own)
  for more in (
    ("--folds", "4", "1", "--variants", "crops", "best"),
    ("--folds", "1", "2", "4", "--variants", "crops", "stride 8", "best"),
    # All variants.
    ("--folds", "4", "1"),
  ):
    study_lib.check_folder(parse(*more), **own)
  for more, message in (
    (
      ("--folds", "4", "2", "--variants", "crops", "best"),
      r"these folds: 4; 1\. There may be more now, but none may be missing",
    ),
    (
      ("--folds", "4", "1", "--variants", "crops"),
      r"these variants: crops; best\. There may be more",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      study_lib.check_folder(parse(*more), **own)
  study_lib.claim(parse("--folds", "4", "1"), **own)
  with pytest.raises(ValueError, match="these variants: all"):
    study_lib.check_folder(first, **own)


def end_run(config, errors, roc_auc):
  """Makes a run as if it had ended and had been scored."""
  folder.claim(config)
  for number, error in enumerate(errors, start=1):
    step = 2 * number
    for kind, values in {
      "train": {"loss": 1.0, "seconds": 10.0 * number, "num_sampled": 100},
      "evaluation": {"pixel_accuracy": 1 - error},
    }.items():
      records.append_json_line(
        config.run.workdir / folder.METRICS_FILE,
        {"kind": kind, "step": step, **values},
      )
  (config.run.workdir / report.EVALUATION).mkdir()
  records.write_json(
    config.run.workdir / report.EVALUATION / report.SUMMARY_FILE,
    {
      "pixel_accuracy": 1 - errors[-1],
      "class_dice": {"background": 0.7, "foreground": 0.9},
      "class_roc_auc": {"background": roc_auc, "foreground": roc_auc},
      "segments": {"best_rand": 0.8, "best_information": 0.85},
    },
  )


def test_the_table_says_when_the_error_of_patches_is_reached(slices, tmp_path):
  config = studies.parse(
    study,
    options(
      slices,
      tmp_path / "run",
      *("--variants", "patches, balanced", "patches, random", "crops"),
    ),
  )
  balanced, patches, crops = study.plan(config)
  end_run(study_lib.run_config(config, balanced, 0), [0.25, 0.3], 0.9)
  end_run(study_lib.run_config(config, patches, 0), [0.3, 0.2], 0.9)
  end_run(study_lib.run_config(config, crops, 0), [0.19, 0.1, 0.12], 0.95)
  rows = studies.table_rows(report.write(config, [balanced, patches, crops]))
  # Steps, images, labelled pixels, seconds, until 20 %, which is the best of
  # all patches, and its share of their time; then scores.
  assert rows["patches, balanced"][4:6] == ["never", ""]
  assert rows["patches, random"] == [
    *("4", "8", "200", "20", "20.0", "100.0"),
    *("20.0", "70.0", "90.0", "80.0", "85.0"),
  ]
  assert rows["crops"] == [
    *("6", "12", "300", "30", "10.0", "50.0"),
    *("12.0", "70.0", "95.0", "80.0", "85.0"),
  ]
  summary = json.loads((tmp_path / "run" / report.SUMMARY_FILE).read_text())
  assert summary["error_of_patches"] == pytest.approx([0.2])
  assert (tmp_path / "run" / report.FIGURE_FILE).exists()


def test_each_fold_is_timed_to_the_error_of_its_own_patches(slices, tmp_path):
  config = studies.parse(
    study,
    options(
      slices,
      tmp_path / "run",
      *("--variants", "patches, random", "crops", "crops, short"),
      *("--folds", "1", "3"),
    ),
  )
  variants = study.plan(config)
  # One fold is harder than the other.
  for variant, errors in zip(
    variants,
    ([0.3, 0.2], [0.15, 0.1], [0.2, 0.1], [0.2, 0.1], [0.2], [0.2, 0.15]),
    strict=True,
  ):
    end_run(study_lib.run_config(config, variant, 0), errors, 0.9)
  table = report.write(config, variants)
  rows = studies.table_rows(table)
  assert rows["patches, random"][4] == "20.0 (20.0-20.0)"
  assert rows["crops"][4:6] == ["15.0 (10.0-20.0)", "75.0 (50.0-100.0)"]
  assert rows["crops, short"][4:6] == ["10.0, 1 of 2 runs", "50.0"]
  assert "in the same fold and seed, 15.00 (10.00-20.00) % of" in table


def test_folds_without_patches_have_their_mean_and_range(
  slices, tmp_path, saved_figures
):
  config = studies.parse(
    study,
    options(slices, tmp_path / "run", "--variants=crops", "--folds", "1", "3"),
  )
  first, second = study.plan(config)
  end_run(study_lib.run_config(config, first, 0), [0.25, 0.1], 0.9)
  end_run(study_lib.run_config(config, second, 0), [0.25, 0.2], 0.96)
  table = report.write(config, [first, second])
  assert "the error of patches" not in table
  (figure,) = saved_figures
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels == ["crops, fold 1", "crops, fold 3"]
  # Steps, images, labelled pixels and seconds; then scores.
  assert studies.table_rows(table)["crops"] == [
    *("4", "8", "200", "20 (20-20)", "15.0 (10.0-20.0)", "70.0 (70.0-70.0)"),
    *("93.0 (90.0-96.0)", "80.0 (80.0-80.0)", "85.0 (85.0-85.0)"),
  ]


@pytest.mark.long
def test_variants_are_trained_and_scored(slices, tmp_path):
  arguments = options(
    slices,
    tmp_path / "run",
    *("--variants", "patches, balanced", "whole images", "uncertain"),
  )
  done = studies.run(study, arguments)
  rows = studies.table_rows(done.stdout)
  assert rows["patches, balanced"][:3] == ["4", "8", "32"]
  steps, images, pixels = rows["whole images"][:3]
  assert (steps, images) == ("8", "8")
  # 8 slices of 64x64; a warp leaves some void.
  assert 0.7 * 8 * 64**2 < int(pixels.replace(",", "")) <= 8 * 64**2
  before = studies.snapshot(tmp_path / "run" / "variants")
  studies.run(study, arguments)
  assert studies.snapshot(tmp_path / "run" / "variants") == before

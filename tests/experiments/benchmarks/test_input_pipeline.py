import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from experiments.benchmarks.input_pipeline import benchmark
from experiments.benchmarks.input_pipeline import picture_files
from experiments.benchmarks.input_pipeline import pillow_transforms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pictures")
  picture_files.make(folder, 5)
  return folder


def test_the_files_made_are_pictures_with_masks(folder):
  source = picture_files.Source(picture_files.find(folder))
  assert len(source) == 5
  for number in range(5):
    example = source[number]
    assert example.image.shape == (360, 480, 3)
    assert example.label.shape == (360, 480)
    assert example.label.max() < picture_files.NUM_CLASSES
    assert example.image.std() > 20
  # About as much to decode as in a photo, and in its mask.
  for path in folder.rglob("*.*"):
    limits = (20e3, 90e3) if path.suffix == ".jpg" else (2e3, 15e3)
    assert limits[0] < path.stat().st_size < limits[1]


def test_a_folder_without_masks_is_refused(folder, tmp_path):
  with pytest.raises(ValueError, match="there is no picture"):
    picture_files.find(tmp_path)
  (tmp_path / "train").mkdir()
  (tmp_path / "train" / "a.jpg").write_bytes(b"")
  with pytest.raises(ValueError, match=r"trainannot/a\.png"):
    picture_files.find(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_both_contestants_make_the_same_crops(folder, seed):
  example = picture_files.Source(picture_files.find(folder))[0]
  size = (320, 320)
  generator = np.random.default_rng(seed)
  pair = fcn.data.pipeline.transforms.random_crop(
    generator,
    example.image,
    example.label,
    size=size,
    factor=generator.uniform(0.5, 2.0),
  )
  ours = fcn.data.pipeline.transforms.pad_to(*pair, size=size)
  theirs = pillow_transforms.random_scale_and_crop(
    np.random.default_rng(seed),
    Image.fromarray(example.image),
    Image.fromarray(example.label),
    size=size,
    scale_range=(0.5, 2.0),
  )
  assert np.abs(ours[0].astype(int) - np.asarray(theirs[0])).max() <= 2
  # Pillow takes another neighbour where a centre lies between two.
  assert np.mean(ours[1] != np.asarray(theirs[1])) < 0.01


def test_both_contestants_change_the_colours_alike(folder):
  example = picture_files.Source(picture_files.find(folder))[0]
  strengths = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
  # Nothing is cut off between the changes.
  image = (64 + example.image // 2).astype(np.uint8)
  ours = fcn.data.pipeline.photometric.color_jitter(
    np.random.default_rng(0), image, **strengths
  )
  theirs = pillow_transforms.color_jitter(
    np.random.default_rng(0), Image.fromarray(image), **strengths, hue=0.0
  )
  assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 4


@pytest.mark.long
def test_the_benchmark_prints_its_tables_and_what_it_leaves_out(
  monkeypatch, capsys
):
  monkeypatch.setattr(benchmark, "torch_loaders", None)
  monkeypatch.setattr(benchmark, "tf_batches", None)
  benchmark.main(
    [
      "--num-pictures=4",
      "--batch-size=2",
      *("--crop-size", "48", "64"),
      "--num-workers=1",
      "--num-batches=1",
      "--rounds=1",
    ]
  )
  printed = capsys.readouterr().out
  for line in (
    "4 made pictures",
    "| scale and crop | ",
    "| fcn_jax, threads | ",
    "| fcn_jax, processes | ",
    "PyTorch is not installed here, and left out.",
    "tf.data is not installed here, and left out.",
  ):
    assert line in printed


def test_sizes_out_of_range_are_explained(capsys):
  with pytest.raises(SystemExit) as stopped:
    benchmark.main(["--rounds=0"])
  assert stopped.value.code == 1
  assert "rounds is 0" in capsys.readouterr().err

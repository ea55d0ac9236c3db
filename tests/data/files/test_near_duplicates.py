import shutil

import numpy as np
import pytest
from PIL import Image
from PIL import ImageFilter

from fcn_jax.data.datasets import folder
from fcn_jax.data.files import checking
from fcn_jax.data.files import near_duplicates
from tests.helpers import planted


def _describe(root):
  look = near_duplicates.hashes if near_duplicates.available() else None
  return near_duplicates.describe(checking.survey(folder.find(root), look=look))


@pytest.fixture
def scenes(tmp_path):
  """Clouds, twelve for training and three for validation."""
  for number in range(15):
    split = "train" if number < 12 else "val"
    for kind in ("images", "masks"):
      (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (9, 12, 3), np.uint8)
    picture = Image.fromarray(noise).resize((96, 72), Image.Resampling.BICUBIC)
    picture.save(tmp_path / split / "images" / f"{number:02d}.png")
    mask = np.zeros((72, 96), np.uint8)
    mask[: 3 * number + 3] = 255
    planted.save(tmp_path / split / "masks" / f"{number:02d}.png", mask)
  return tmp_path


def _compressed(picture):
  return picture.filter(ImageFilter.GaussianBlur(1)).point(lambda v: v * 0.9)


def _mirrored(picture):
  return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def test_altered_copies_in_another_split_are_named(scenes):
  pytest.importorskip("imagehash")
  assert _describe(scenes) == []
  for number, alter in ((3, _compressed), (7, _mirrored)):
    with Image.open(scenes / "train" / "images" / f"{number:02d}.png") as image:
      alter(image).save(scenes / "val" / "images" / f"copy_{number}.png")
    shutil.copy(
      scenes / "train" / "masks" / f"{number:02d}.png",
      scenes / "val" / "masks" / f"copy_{number}.png",
    )
  (remark,) = _describe(scenes)
  assert remark.startswith(
    "2 pictures of validation look like pictures of train"
  )
  assert "copy_3.png" in remark and "03.png" in remark


def test_without_imagehash_one_line_says_what_to_install(scenes, monkeypatch):
  monkeypatch.setattr(near_duplicates, "available", lambda: False)
  (remark,) = _describe(scenes)
  assert "not looked for" in remark and "pip install ImageHash" in remark

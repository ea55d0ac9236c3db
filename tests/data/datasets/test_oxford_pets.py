import collections
import functools
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.datasets import oxford_pets
from tests.helpers import data_sets

# Enough names for the share that is for validation.
_TRAINVAL = [f"Abyssinian_{number}" for number in range(100, 116)]
_TEST = ["pug_7", "Bengal_3", "american_pit_bull_terrier_12"]


def _encode(picture, **options):
  buffer = io.BytesIO()
  picture.save(buffer, **options)
  return buffer.getvalue()


def make(folder):
  """An Oxford-IIIT Pet folder, with the oddities of the true one."""
  images, annotations = folder / "images", folder / "annotations"
  trimaps = annotations / "trimaps"
  for path in (images, trimaps, annotations / "xmls"):
    path.mkdir(parents=True)
  generator = np.random.default_rng(0)
  for name in (*_TRAINVAL, *_TEST, "Abyssinian_1"):
    picture = generator.integers(256, size=(8, 10, 3), dtype=np.uint8)
    trimap = generator.integers(1, 4, size=(8, 10), dtype=np.uint8)
    trimap.flat[:3] = (1, 2, 3)
    Image.fromarray(picture).save(images / f"{name}.jpg")
    Image.fromarray(trimap).save(trimaps / f"{name}.png")
    (trimaps / f"._{name}.png").write_bytes(b"\0\5\x16\7")
  for name in ("Abyssinian_100", "Abyssinian_101"):
    (images / f"{name}.mat").write_bytes(b"MATLAB 5.0")
  head = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
  lines = {
    "trainval": [f"{name} 1 1 1\n" for name in _TRAINVAL],
    "test": [f"{name} 26 2 19\n" for name in _TEST],
  }
  for name, text in lines.items():
    (annotations / f"{name}.txt").write_text("".join(text))
  everything = "".join(lines["trainval"] + lines["test"])
  (annotations / "list.txt").write_text(head + everything)


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "files"
  make(root)
  return root


_load = functools.partial(data_sets.load, "oxford_pets")


def test_trimaps_become_background_pet_and_void(folder, tmp_path):
  dataset = _load(folder, tmp_path, "test")
  assert dataset.class_names == ("background", "pet")
  assert [example.name for example in dataset.source] == _TEST
  for example in dataset.source:
    picture = Image.open(folder / "images" / f"{example.name}.jpg")
    trimap = np.array(
      Image.open(folder / "annotations/trimaps" / f"{example.name}.png")
    )
    np.testing.assert_array_equal(example.image, np.array(picture))
    assert np.all(example.label[trimap == 1] == 1)
    assert np.all(example.label[trimap == 2] == 0)
    assert np.all(example.label[trimap == 3] == types.IGNORE_LABEL)


def test_train_and_validation_share_the_pictures_of_trainval(folder, tmp_path):
  splits = {
    split: [example.name for example in _load(folder, tmp_path, split).source]
    for split in ("train", "validation")
  }
  assert sorted(splits["train"] + splits["validation"]) == _TRAINVAL
  assert splits["train"] == sorted(splits["train"])
  # The same in every process and on every machine.
  assert splits["validation"] == [
    "Abyssinian_101",
    "Abyssinian_106",
    "Abyssinian_109",
    "Abyssinian_111",
  ]


def test_a_picture_stays_in_its_split_when_others_come_and_go(folder):
  before = {
    pair.name: pair.split
    for pair in data.datasets.oxford_pets.find(folder).pairs
  }
  path = folder / "annotations" / "trainval.txt"
  path.write_text("".join(path.read_text().splitlines(keepends=True)[3:]))
  after = {
    pair.name: pair.split
    for pair in data.datasets.oxford_pets.find(folder).pairs
  }
  assert len(after) == len(before) - 3
  assert after.items() < before.items()


def test_a_fifth_of_many_names_is_for_validation(folder):
  names = [f"Bengal_{number}" for number in range(100, 1100)]
  for name in names:
    for path in ("images/pug_7.jpg", "annotations/trimaps/pug_7.png"):
      file = folder / path
      file.with_stem(name).hardlink_to(file)
  _edit_list(folder, "".join(f"{name} 1 1 1\n" for name in names))
  pairs = data.datasets.oxford_pets.find(folder).pairs
  count = sum(pair.split == "validation" for pair in pairs)
  assert count == pytest.approx(1016 / 5, abs=40)


def _odd_pictures():
  generator = np.random.default_rng(1)
  picture = generator.integers(256, size=(8, 10, 3), dtype=np.uint8)
  image = Image.fromarray(picture)
  second = Image.fromarray(255 - picture)
  translucent = np.dstack([picture, np.full((8, 10), 128, np.uint8)])
  frame = np.array(image.quantize(64).convert("RGB"))
  jpeg = _encode(image, format="JPEG")
  decoded = np.array(Image.open(io.BytesIO(jpeg)))
  # Bytes before the marker at the end, which readers warn of.
  extraneous = jpeg[:-2] + b"\0" * 17 + jpeg[-2:]
  return {
    "bmp": (_encode(image, format="BMP"), picture),
    "png": (_encode(image, format="PNG"), picture),
    "png with alpha": (
      _encode(Image.fromarray(translucent), format="PNG"),
      picture,
    ),
    "gif": (_encode(image.quantize(64), format="GIF"), frame),
    "animated gif": (
      _encode(
        image.quantize(64),
        format="GIF",
        save_all=True,
        append_images=[second.quantize(64)],
      ),
      frame,
    ),
    "grey": (
      _encode(image.convert("L"), format="PNG"),
      np.array(image.convert("L").convert("RGB")),
    ),
    "jpeg with extraneous bytes": (extraneous, decoded),
  }


@pytest.mark.parametrize("kind", _odd_pictures())
def test_pictures_of_other_formats_named_jpg_are_read(folder, tmp_path, kind):
  content, expected = _odd_pictures()[kind]
  (folder / "images" / "pug_7.jpg").write_bytes(content)
  example = _load(folder, tmp_path, "test").source[0]
  assert example.name == "pug_7"
  np.testing.assert_array_equal(example.image, expected)


def _edit_list(folder, line, name="trainval"):
  path = folder / "annotations" / f"{name}.txt"
  path.write_text(path.read_text() + line)


def _climbs(folder):
  shutil.copy(folder / "images/pug_7.jpg", folder / "pug.jpg")
  shutil.copy(folder / "annotations/trimaps/pug_7.png", folder / "pug.png")
  _edit_list(folder, "../pug 1 1 1\n")


def _absolute(folder):
  _edit_list(folder, "/etc/passwd 1 1 1\n")


def _hidden(folder):
  _edit_list(folder, "._pug_7 1 1 1\n")


def _backslash(folder):
  _edit_list(folder, "..\\pug 1 1 1\n")


def _twice(folder):
  _edit_list(folder, "pug_7 1 1 1\n")


def _binary_list(folder):
  (folder / "annotations/test.txt").write_bytes(b"\xff\0\x80 1\n")


def _picture_missing(folder):
  (folder / "images" / "pug_7.jpg").unlink()


def _mask_missing(folder):
  (folder / "annotations/trimaps/Bengal_3.png").unlink()


def _list_missing(folder):
  (folder / "annotations" / "test.txt").unlink()


def _link_outside(folder):
  outside = shutil.move(folder / "images/pug_7.jpg", folder.parent / "x.jpg")
  (folder / "images" / "pug_7.jpg").symlink_to(outside)


def _list_outside(folder):
  outside = shutil.move(folder / "annotations/test.txt", folder.parent / "x")
  (folder / "annotations" / "test.txt").symlink_to(outside)


def _value_0(folder):
  trimap = np.ones((8, 10), np.uint8)
  trimap[0, 0] = 0
  Image.fromarray(trimap).save(folder / "annotations/trimaps/pug_7.png")


def _value_4(folder):
  trimap = np.full((8, 10), 4, np.uint8)
  Image.fromarray(trimap).save(folder / "annotations/trimaps/pug_7.png")


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_climbs, r"trainval\.txt has '\.\./pug' in line 17, .* not the name"),
    (_absolute, r"trainval\.txt has '/etc/passwd' in line 17, .* not the name"),
    (_hidden, r"trainval\.txt has '\._pug_7' in line 17, .* not the name"),
    (_backslash, r"trainval\.txt has '\.\.\\\\pug' in line 17"),
    (_twice, r"test\.txt has pug_7, which trainval\.txt has, too; remove"),
    (_binary_list, r"test\.txt cannot be read as a list .* download it again"),
    (_picture_missing, r"pug_7\.jpg is not there.*test\.txt names it"),
    (_mask_missing, r"Bengal_3\.png is not there.*test\.txt names it"),
    (_list_missing, r"test\.txt is not there, though .* download it again"),
    (_link_outside, r"pug_7\.jpg is, or lies behind, a symbolic link"),
    (_list_outside, r"test\.txt is, or lies behind, a symbolic link"),
    (_value_0, r"pug_7\.png has the values \[0\]; a trimap"),
    (_value_4, r"pug_7\.png has the values \[4\]; a trimap"),
  ],
)
def test_a_bad_folder_is_refused_by_name_and_nothing_is_written(
  folder, tmp_path, damage, message
):
  damage(folder)
  data_sets.assert_refused("oxford_pets", folder, tmp_path, message)


def test_the_checksums_are_those_that_tfds_publishes():
  folder = pathlib.Path(tfds.__file__).parent / "datasets" / "oxford_iiit_pet"
  rows = (folder / "checksums.tsv").read_text().splitlines()
  published = {row.split("\t")[3]: row.split("\t")[2] for row in rows}
  known = oxford_pets.ARCHIVES.items()
  assert {name: archive.checksum for name, archive in known} == published


@pytest.mark.skipif(
  "OXFORD_PETS_DIR" not in os.environ, reason="OXFORD_PETS_DIR is not set"
)
def test_the_real_data_set_has_the_published_numbers_of_pictures():
  found = data.datasets.oxford_pets.find(
    pathlib.Path(os.environ["OXFORD_PETS_DIR"])
  )
  splits = collections.Counter(pair.split for pair in found.pairs)
  assert splits["train"] + splits["validation"] == 3680
  assert splits["test"] == 3669
  assert not found.faults

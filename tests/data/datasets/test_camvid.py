import functools
import io
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fcn_jax import types
from fcn_jax.data.datasets import camvid
from tests.helpers import data_sets

_FOLDERS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path):
  """A CamVid folder with two pictures a split, one PNG and one JPEG."""
  root = tmp_path / "camvid"
  generator = np.random.default_rng(0)
  for name in _FOLDERS:
    (root / name).mkdir(parents=True)
    (root / (name + "annot")).mkdir()
    for stem, suffix in (("a", "png"), ("b", "jpg")):
      picture = generator.integers(256, size=(6, 8, 3), dtype=np.uint8)
      mask = generator.integers(12, size=(6, 8), dtype=np.uint8)
      mask[0, 0] = camvid.VOID_ID
      Image.fromarray(picture).save(root / name / f"{name}_{stem}.{suffix}")
      Image.fromarray(mask).save(root / f"{name}annot" / f"{name}_{stem}.png")
  return root


_load = functools.partial(data_sets.load, "camvid")


def _read(path):
  return np.array(Image.open(path))


def _png(array, **options):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format="PNG", **options)
  return buffer.getvalue()


@pytest.mark.parametrize(
  ("split", "name"), [("train", "train"), ("validation", "val"), ("test",) * 2]
)
def test_pictures_and_masks_come_back_with_11_as_void(
  folder, tmp_path, split, name
):
  source = _load(folder, tmp_path, split).source
  assert [e.name for e in source] == [f"{name}_a", f"{name}_b"]
  for example, suffix in zip(source, ("png", "jpg"), strict=True):
    picture = _read(folder / name / f"{example.name}.{suffix}")
    mask = _read(folder / f"{name}annot" / f"{example.name}.png")
    expected = np.where(mask == 11, types.IGNORE_LABEL, mask)
    np.testing.assert_array_equal(example.image, picture)
    np.testing.assert_array_equal(example.label, expected)
    assert example.label.dtype == np.int32


def test_pictures_keep_the_bytes_of_their_files(folder, tmp_path):
  _load(folder, tmp_path)
  content = (folder / "train" / "train_b.jpg").read_bytes()
  shards = (tmp_path / "data").rglob("camvid-train.array_record*")
  # Records are compressed in blocks; so the source is asked, before decoding.
  builder = camvid.Camvid(data_dir=tmp_path / "data")
  skip = tfds.decode.SkipDecoding()
  records = builder.as_data_source(
    "train", decoders={"image": skip, "label": skip}
  )
  assert list(shards)
  assert records[1]["image"] == content


def test_the_data_set_has_eleven_classes_with_a_colour_each(folder, tmp_path):
  dataset = _load(folder, tmp_path)
  assert dataset.num_classes == 11
  assert dataset.class_names[3] == "road"
  assert tuple(dataset.palette[3]) == (128, 64, 128)
  assert len(np.unique(dataset.palette, axis=0)) == 11


def test_a_palette_mask_gives_its_indices(folder, tmp_path):
  path = folder / "trainannot" / "train_a.png"
  mask = Image.fromarray(_read(path))
  mask.putpalette(np.arange(768, dtype=np.uint8)[::-1].tobytes())
  assert mask.mode == "P"
  expected = np.array(mask)
  mask.save(path)
  label = _load(folder, tmp_path).source[0].label
  np.testing.assert_array_equal(label[expected < 11], expected[expected < 11])


def test_a_prepared_data_set_needs_no_source(folder, tmp_path):
  first = _load(folder, tmp_path).source[0]
  shutil.rmtree(folder)
  second = _load(None, tmp_path).source[0]
  np.testing.assert_array_equal(first.label, second.label)


def test_a_copy_of_the_files_is_the_same_source(folder, tmp_path):
  _load(folder, tmp_path)
  copy = shutil.copytree(folder, tmp_path / "copy")
  for path in copy.rglob("*.png"):
    os.utime(path, (0, 0))
  assert len(_load(copy, tmp_path).source) == 2


def _change_a_pixel(folder):
  # Stored, not compressed: the size of the file stays.
  path = folder / "valannot" / "val_a.png"
  mask = _read(path)
  path.write_bytes(_png(mask, compress_level=0))
  yield
  size = path.stat().st_size
  mask[2, 2] = (mask[2, 2] + 1) % 11
  path.write_bytes(_png(mask, compress_level=0))
  assert path.stat().st_size == size


def _remove_a_pair(folder):
  yield
  (folder / "train" / "train_a.png").unlink()
  (folder / "trainannot" / "train_a.png").unlink()


def _rename_a_pair(folder):
  yield
  for name in ("train", "trainannot"):
    (folder / name / "train_a.png").rename(folder / name / "train_c.png")


@pytest.mark.parametrize(
  "change", [_change_a_pixel, _remove_a_pair, _rename_a_pair]
)
def test_data_prepared_from_other_files_are_not_reused(
  folder, tmp_path, change
):
  steps = change(folder)
  next(steps)
  _load(folder, tmp_path)
  next(steps, None)
  with pytest.raises(ValueError, match=r"other files.*remove"):
    _load(folder, tmp_path)


def test_data_prepared_by_another_version_are_not_reused(
  folder, tmp_path, monkeypatch
):
  _load(folder, tmp_path)
  monkeypatch.setattr(camvid.Camvid, "VERSION", tfds.core.Version("9.9.9"))
  monkeypatch.setattr(camvid.Camvid, "RELEASE_NOTES", {"9.9.9": "Another."})
  with pytest.raises(ValueError, match="not prepared"):
    _load(None, tmp_path)
  _load(folder, tmp_path)
  names = {p.name for p in (tmp_path / "data" / "camvid").glob("[0-9]*")}
  assert names == {"3.0.0", "9.9.9"}


def _empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def _file_in_place_of_folder(folder):
  shutil.rmtree(folder)
  folder.write_text("not a folder")


def _other_layout(folder):
  (folder / "trainannot").rename(folder / "train_labels")


def _no_pictures(folder):
  shutil.rmtree(folder / "val")
  (folder / "val").mkdir()


def _no_mask(folder):
  (folder / "valannot" / "val_b.png").unlink()


def _no_picture(folder):
  (folder / "test" / "test_b.jpg").unlink()


def _two_pictures_of_a_name(folder):
  shutil.copy(folder / "train" / "train_b.jpg", folder / "train/train_b.png")


def _other_size(folder):
  mask = np.zeros((6, 9), np.uint8)
  (folder / "trainannot" / "train_a.png").write_bytes(_png(mask))


def _truncated(folder):
  path = folder / "train" / "train_b.jpg"
  path.write_bytes(path.read_bytes()[:-20])


def _truncated_mask(folder):
  path = folder / "trainannot" / "train_b.png"
  path.write_bytes(path.read_bytes()[:50])


def _zero_bytes(folder):
  (folder / "train" / "train_b.jpg").write_bytes(b"")


def _text(folder):
  (folder / "train" / "train_a.png").write_text("a picture, honestly")


def _ids_outside(folder):
  mask = np.zeros((6, 8), np.uint8)
  mask[3, 4] = 12
  (folder / "testannot" / "test_a.png").write_bytes(_png(mask))


def _colour_mask(folder):
  mask = np.zeros((6, 8, 3), np.uint8)
  (folder / "testannot" / "test_a.png").write_bytes(_png(mask))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (shutil.rmtree, r"no folder .*camvid; give"),
    (_empty, r"folder is empty"),
    (_file_in_place_of_folder, r"camvid is a file"),
    (_other_layout, r"no folder trainannot; expected.*found:.*train_labels"),
    (_no_pictures, r"val_a\.png has no picture .*; add"),
    (_no_mask, r"val_b\.jpg has no mask .*valannot/val_b\.\*; add"),
    (_no_picture, r"test_b\.png has no picture .*test/test_b\.\*; add"),
    (_two_pictures_of_a_name, r"train_b\.jpg.*train_b\.png.*keep one"),
    (
      _other_size,
      r"trainannot/train_a\.png has 9x6 .* picture .*train_a\.png 8x6; resize",
    ),
    (_truncated, r"train/train_b\.jpg cannot be read .*truncated.*again"),
    (_truncated_mask, r"trainannot/train_b\.png cannot be read .*again"),
    (_zero_bytes, r"train/train_b\.jpg is empty \(0 bytes\)"),
    (_text, r"train/train_a\.png cannot be read .*again"),
    (_ids_outside, r"testannot/test_a\.png has the values \[12\].*0\.\.11"),
    (_colour_mask, r"testannot/test_a\.png is not a mask .* colours"),
  ],
  ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_folder_is_refused_by_name_and_nothing_is_written(
  folder, tmp_path, damage, message
):
  damage(folder)
  data_sets.assert_refused("camvid", folder, tmp_path, message)


def test_several_bad_files_are_named_in_one_message(folder, tmp_path):
  _truncated(folder)
  _ids_outside(folder)
  with pytest.raises(ValueError, match=r"(?s)test_a\.png.*train_b\.jpg"):
    _load(folder, tmp_path)


def test_files_of_the_operating_system_are_no_pictures(folder, tmp_path):
  (folder / "train" / ".DS_Store").write_bytes(b"x")
  (folder / "train" / "._train_a.png").write_bytes(b"x")
  (folder / "train" / "Thumbs.db").write_bytes(b"x")
  assert len(_load(folder, tmp_path).source) == 2


def test_without_source_and_prepared_data_the_message_says_what_to_give(
  tmp_path,
):
  with pytest.raises(ValueError, match=r"not prepared.*give the folder"):
    _load(None, tmp_path)
  assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.skipif(
  "CAMVID_DIR" not in os.environ, reason="CAMVID_DIR is not set"
)
def test_the_real_data_set_has_701_pictures_and_the_known_class_shares(
  tmp_path,
):
  datasets = {
    split: _load(os.environ["CAMVID_DIR"], tmp_path, split)
    for split in camvid.SPLITS
  }
  lengths = {split: len(d.source) for split, d in datasets.items()}
  assert lengths == {"train": 367, "validation": 101, "test": 233}
  counts = np.zeros(256)
  for example in datasets["train"].source:
    assert example.image.shape == (360, 480, 3)
    counts += np.bincount(example.label.ravel(), minlength=256)
  shares = counts / counts.sum()
  expected = [0.168, 0.233, 0.0098, 0.317, 0.045, 0.097]
  expected += [0.0117, 0.0113, 0.059, 0.0064, 0.0029]
  np.testing.assert_allclose(shares[:11], expected, atol=6e-4)
  assert shares[types.IGNORE_LABEL] == pytest.approx(0.040, abs=6e-4)

"""Data sets with layouts of their own, in tiny copies of these layouts."""

import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.datasets import nyudv2
from fcn_jax.data.datasets import palettes
from fcn_jax.data.datasets import pascal_context
from fcn_jax.data.datasets import sift_flow
from fcn_jax.data.datasets import voc2012
from fcn_jax.data.files import matlab

_SIZE = (6, 8)
_INNER = "spatial_envelope_256x256_static_8outdoorcategories"


@dataclasses.dataclass
class _Expected:
  """What must be read of one example."""

  name: str
  picture: pathlib.Path
  label: np.ndarray
  extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


_Splits = Mapping[str, Sequence[_Expected]]


class _Writer:
  """Writes files into a folder, and makes up what is in them."""

  def __init__(self, root):
    self.root = root
    self._generator = np.random.default_rng(0)

  def _path(self, path):
    (self.root / path).parent.mkdir(parents=True, exist_ok=True)
    return self.root / path

  def integers(self, low, high, *, channels=(), dtype=np.uint8):
    shape = (*_SIZE, *channels)
    return self._generator.integers(low, high, size=shape, dtype=dtype)

  def picture(self, path):
    path = self._path(path)
    Image.fromarray(self.integers(0, 256, channels=(3,))).save(path)
    return path

  def png(self, path, array, *, palette=False):
    image = Image.fromarray(array)
    if palette:
      image.putpalette(
        np.array(palettes.voc_palette(num_classes=256), np.uint8).tobytes()
      )
    image.save(self._path(path))

  def mat(self, path, **variables):
    scipy.io.savemat(self._path(path), variables, do_compression=True)

  def text(self, path, lines):
    self._path(path).write_text("".join(f"{line}\n" for line in lines))


def _write_voc2012(root) -> _Splits:
  write = _Writer(root)
  voc, sbd = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
  masks = {}
  for name in ("2007_01", "2008_02", "2009_03", "2010_04", "2012_05"):
    write.picture(f"{voc}/JPEGImages/{name}.jpg")
    masks[name] = write.integers(0, 21)
    masks[name][0] = types.IGNORE_LABEL  # As at the borders of objects.
    mask_path = f"{voc}/SegmentationClass/{name}.png"
    write.png(mask_path, masks[name], palette=True)
  extra = {}
  for name in ("2009_03", "2008_99", "2011_98"):
    write.picture(f"{sbd}/img/{name}.jpg")
    extra[name] = write.integers(0, 21)
    segmentation = {
      "Boundaries": scipy.sparse.csc_matrix(_SIZE),
      "Segmentation": extra[name],
      "CategoriesPresent": np.array([[1]], np.uint8),
    }
    write.mat(f"{sbd}/cls/{name}.mat", GTcls=segmentation)
  # Not in the order of the names.
  write.text(f"{sbd}/train.txt", ["2009_03", "2008_99"])
  write.text(f"{sbd}/val.txt", ["2011_98"])
  lists = f"{voc}/ImageSets/Segmentation"
  write.text(f"{lists}/train.txt", ["2010_04"])
  write.text(f"{lists}/val.txt", ["2007_01", "2008_02", "2009_03", "2012_05"])
  write.text(
    "TrainVal/VOCdevkit/VOC2011/ImageSets/Segmentation/val.txt",
    ["2008_02", "2009_03", "2007_01"],
  )

  def of_voc(name):
    return _Expected(name, root / voc / f"JPEGImages/{name}.jpg", masks[name])

  return {
    "train": [
      _Expected(name, root / sbd / f"img/{name}.jpg", extra[name])
      for name in ("2009_03", "2008_99")
    ],
    # 2009_03 is in both lists.
    "validation": [of_voc("2008_02"), of_voc("2007_01")],
    "validation2012": [of_voc("2012_05")],
  }


def _write_pascal_context(root) -> _Splits:
  write = _Writer(root)
  # In labels.txt: 9 bag, 19 bedclothes, 80 cloth, 397 table, 1 accordion.
  numbers = np.array([[0, 1, 2, 9, 19], [80, 397, 458, 459, 23]], np.uint16)
  label = np.array([[0, 0, 1, 21, 52], [28, 11, 59, 0, 2]])
  expected = {}
  for name in ("2008_01", "2009_02", "2010_03"):
    path = write.picture(f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg")
    rows = np.tile(numbers, (3, 2))[:, : _SIZE[1]]
    write.mat(f"trainval/{name}.mat", LabelMap=rows)
    expected[name] = _Expected(
      name, path, np.tile(label, (3, 2))[:, : _SIZE[1]]
    )
  lists = "VOCdevkit/VOC2010/ImageSets/Main"
  write.text(f"{lists}/train.txt", ["2010_03", "2008_01"])
  write.text(f"{lists}/val.txt", ["2009_02"])
  return {
    "train": [expected["2010_03"], expected["2008_01"]],
    "validation": [expected["2009_02"]],
  }


def _write_sift_flow(root) -> _Splits:
  write = _Writer(root)
  expected = {}
  for name in ("coast_b1", "coast_a2", "forest_c3", "highway_bost181"):
    path = write.picture(f"Images/{_INNER}/{name}.jpg")
    semantic = write.integers(0, 34)
    # MATLAB's default type, and a negative void.
    geometric = write.integers(-1, 4, dtype=np.int64).astype(np.float64)
    if name == "highway_bost181":
      semantic[:] = 0
    write.mat(f"SemanticLabels/{_INNER}/{name}.mat", S=semantic)
    write.mat(f"GeoLabels/{_INNER}/{name}.mat", S=geometric)
    expected[name] = _Expected(
      name,
      path,
      np.where(semantic == 0, 255, semantic - 1),
      {
        "geometric": np.where(geometric <= 0, 255, geometric - 1).astype(
          np.uint8
        )
      },
    )
  write.text("TestSet1.txt", [f"{_INNER}\\coast_b1.jpg"])
  return {
    "train": [expected["coast_a2"], expected["forest_c3"]],
    "test": [expected["coast_b1"]],
  }


def _write_nyudv2(root) -> _Splits:
  write = _Writer(root)
  expected = {}
  for name in ("5003", "5002", "5001", "6449"):
    path = write.picture(f"nyud/data/images/img_{name}.png")
    depth = write.integers(0, 1 << 16, dtype=np.uint16)
    hha = write.integers(0, 256, channels=(3,))
    segmentation = write.integers(0, 41)
    write.png(f"nyud/data/depth/img_{name}.png", depth)
    write.png(f"nyud/data/hha/img_{name}.png", hha)
    write.mat(f"nyud/segmentation/img_{name}.mat", segmentation=segmentation)
    expected[name] = _Expected(
      name,
      path,
      np.where(segmentation == 0, 255, segmentation - 1),
      {"depth": depth, "hha": hha},
    )
  lists = {"train": ["5003", "5001"], "val": ["5002"], "test": ["6449"]}
  for name, names in lists.items():
    write.text(f"nyud/{name}.txt", names)
  return {
    "train": [expected["5003"], expected["5001"]],
    "validation": [expected["5002"]],
    "test": [expected["6449"]],
  }


_WRITERS = {
  voc2012: _write_voc2012,
  pascal_context: _write_pascal_context,
  sift_flow: _write_sift_flow,
  nyudv2: _write_nyudv2,
}
# What is in each archive, as paths of a folder's top level.
_CONTENTS = {
  voc2012: {
    "VOCtrainval_11-May-2012.tar": ["VOCdevkit"],
    "benchmark.tgz": ["benchmark_RELEASE"],
    "VOCtrainval_25-May-2011.tar": ["TrainVal"],
  },
  pascal_context: {
    "VOCtrainval_03-May-2010.tar": ["VOCdevkit"],
    "trainval.tar.gz": ["trainval"],
  },
  sift_flow: {
    "SiftFlowDataset.zip": [
      *("Images", "SemanticLabels", "GeoLabels", "TestSet1.txt")
    ]
  },
}


def _name(module):
  return module.__name__.rpartition(".")[2]


def _all(modules):
  return pytest.mark.parametrize("module", modules, ids=_name)


_ARCHIVED = list(_CONTENTS)


def _pack(folder, target, module):
  """Makes a data set's archives of what is in a folder."""
  target.mkdir()
  for name, tops in _CONTENTS[module].items():
    if name.endswith("zip"):
      with zipfile.ZipFile(target / name, "w") as file:
        for path in sorted(folder.rglob("*")):
          file.write(path, path.relative_to(folder))
    else:
      mode = "w:gz" if name.endswith("gz") else "w"
      with tarfile.open(target / name, mode) as file:
        for top in tops:
          file.add(folder / top, top)
  return target


def _trust(monkeypatch, module, folder):
  """Puts the archives' own checksums in place of the published ones."""
  for name, archive in module.ARCHIVES.items():
    if (folder / name).exists():
      checksum = hashlib.md5((folder / name).read_bytes()).hexdigest()
      archive = archive._replace(checksum=checksum)
    monkeypatch.setitem(module.ARCHIVES, name, archive)


@pytest.fixture
def packed(tmp_path, monkeypatch):
  """A function that makes a folder of a data set's archives."""

  def make(module):
    splits = _WRITERS[module](tmp_path / "original")
    folder = _pack(tmp_path / "original", tmp_path / "packed", module)
    _trust(monkeypatch, module, folder)
    return folder, splits

  return make


def _load(module, tmp_path, folder, split, **options):
  return data.load(
    _name(module),
    split=split,
    data_dir=folder,
    prepared_dir=tmp_path / "data",
    **options,
  )


def _read(path):
  return np.array(Image.open(path).convert("RGB"))


def _assert_equal(source, expected):
  assert [example.name for example in source] == [e.name for e in expected]
  for example, wanted in zip(source, expected, strict=True):
    np.testing.assert_array_equal(example.image, _read(wanted.picture))
    np.testing.assert_array_equal(example.label, wanted.label)
    assert example.label.dtype == np.int32
    for name, extra in wanted.extras.items():
      np.testing.assert_array_equal(example.extras[name], extra)
      assert example.extras[name].dtype == extra.dtype


def _assert_read(module, tmp_path, folder, splits):
  for split, expected in splits.items():
    extras = tuple(expected[0].extras)
    dataset = _load(module, tmp_path, folder, split, extras=extras)
    _assert_equal(dataset.source, expected)


def _assert_refused(module, tmp_path, folder, message, split="train"):
  """Loading fails with one line, and leaves nothing behind."""
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(ValueError, match=message) as error:
    _load(module, tmp_path, folder, split)
  # A paragraph, and a line for each fault.
  assert str(error.value).count("\n") <= 4
  assert sorted(tmp_path.rglob("*")) == before


@_all(_WRITERS)
def test_a_folder_gives_its_pictures_labels_extras_and_splits(module, tmp_path):
  splits = _WRITERS[module](tmp_path / "original")
  assert set(splits) == set(module.SPLITS)
  _assert_read(module, tmp_path, tmp_path / "original", splits)


@_all(_ARCHIVED)
def test_archives_give_the_same_as_what_is_in_them(module, tmp_path, packed):
  folder, splits = packed(module)
  _assert_read(module, tmp_path, folder, splits)
  # Recognised as the same source, packed or not.
  _assert_read(module, tmp_path, tmp_path / "original", splits)
  assert not list((tmp_path / "data").glob(".*"))


@_all(_ARCHIVED)
def test_a_missing_archive_is_named_with_where_to_get_it(
  module, tmp_path, packed
):
  folder, _ = packed(module)
  for name, archive in module.ARCHIVES.items():
    (folder / name).rename(tmp_path / "away")
    message = f"lacks {name} or, unpacked, .*download it from {archive.source}"
    _assert_refused(module, tmp_path, folder, message)
    (tmp_path / "away").rename(folder / name)


@_all([voc2012, pascal_context])
def test_archives_other_than_the_published_ones_are_refused(module, tmp_path):
  _WRITERS[module](tmp_path / "original")
  folder = _pack(tmp_path / "original", tmp_path / "packed", module)
  message = r"has the md5 checksum \w+, but \w+ is expected.*again from http"
  _assert_refused(module, tmp_path, folder, message)


def test_the_published_checksums_are_those_of_the_known_files():
  known = {
    "VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd",
    "VOCtrainval_25-May-2011.tar": "6c3384ef61512963050cb5d687e5bf1e",
    "VOCtrainval_03-May-2010.tar": "da459979d0c395079b5c75ee67908abb",
    "benchmark.tgz": "82b4d87ceb2ed10f6038a1cba92111cb",
  }
  every = {**voc2012.ARCHIVES, **pascal_context.ARCHIVES}
  assert {name: every[name].checksum for name in known} == known


def _middle(path):
  """Where to cut an archive off, within a file in it."""
  if path.suffix != ".tar":
    return path.stat().st_size // 2
  with tarfile.open(path) as file:
    return max(m.offset_data + m.size // 2 for m in file if m.isfile())


@_all(_ARCHIVED)
def test_a_truncated_archive_is_refused(module, tmp_path, packed, monkeypatch):
  folder, _ = packed(module)
  for name in module.ARCHIVES:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: _middle(folder / name)])
    # The checksum finds it first, where there is one.
    _assert_refused(module, tmp_path, folder, f"{name} has the md5 checksum")
    _trust(monkeypatch, module, folder)
    message = f"{name} (cannot be unpacked|cannot be unpacked).*again"
    _assert_refused(module, tmp_path, folder, message)
    (folder / name).write_bytes(content)
    _trust(monkeypatch, module, folder)


def test_a_changed_byte_in_an_archive_without_checksum_is_found(
  tmp_path, packed, monkeypatch
):
  folder, _ = packed(pascal_context)
  path = folder / "trainval.tar.gz"
  # The last eight bytes are the checksum and the length of what is in it.
  content = bytearray(path.read_bytes())
  content[-8] ^= 1
  path.write_bytes(content)
  _trust(monkeypatch, pascal_context, folder)
  _assert_refused(
    pascal_context, tmp_path, folder, f"{path.name} cannot be unpacked"
  )


def test_archives_of_which_some_are_unpacked_are_refused(tmp_path, packed):
  folder, _ = packed(voc2012)
  shutil.copytree(tmp_path / "original/VOCdevkit", folder / "VOCdevkit")
  message = r"are unpacked, but not benchmark\.tgz, VOCtrainval.*unpack"
  _assert_refused(voc2012, tmp_path, folder, message)


@_all([voc2012, pascal_context])
def test_an_archive_that_would_write_outside_of_its_folder_is_refused(
  module, tmp_path, packed, monkeypatch
):
  folder, _ = packed(module)
  name = list(module.ARCHIVES)[-1]
  with tarfile.open(folder / name, "w") as file:
    member = tarfile.TarInfo("../../evil.txt")
    member.size = 4
    file.addfile(member, io.BytesIO(b"evil"))
  _trust(monkeypatch, module, folder)
  _assert_refused(module, tmp_path, folder, f"{name} cannot be unpacked")


def test_a_zip_archive_cannot_write_outside_of_its_folder(
  tmp_path, packed, monkeypatch
):
  folder, splits = packed(sift_flow)
  with zipfile.ZipFile(folder / "SiftFlowDataset.zip", "a") as file:
    file.writestr("../../evil.txt", "evil")
  _trust(monkeypatch, sift_flow, folder)
  _assert_read(sift_flow, tmp_path, folder, splits)
  assert not list(tmp_path.rglob("evil.txt"))


@_all(_WRITERS)
def test_there_are_as_many_classes_and_colours_as_published(module):
  num_classes = {voc2012: 21, pascal_context: 60, sift_flow: 33, nyudv2: 40}
  assert len(module.CLASS_NAMES) == num_classes[module]
  assert len(set(module.CLASS_NAMES)) == num_classes[module]
  assert len(set(module.PALETTE)) == num_classes[module]


def _digest(words):
  return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:16]


# Made of the files with classes in github.com/shelhamer/fcn.berkeleyvision.org.
@pytest.mark.parametrize(
  ("module", "digest"),
  [
    (voc2012, "301e5e4e2a9a7ab6"),
    (pascal_context, "7fb943a0a5fad41e"),
    (sift_flow, "d65012bb2ecec544"),
    (nyudv2, "2cfe145545f5e7cd"),
  ],
  ids=["voc2012", "pascal_context", "sift_flow", "nyudv2"],
)
def test_classes_are_in_the_published_order(module, digest):
  assert _digest(module.CLASS_NAMES) == digest


@_all(_WRITERS)
def test_a_count_other_than_the_published_one_is_noted_but_no_fault(
  module, tmp_path, monkeypatch
):
  splits = _WRITERS[module](tmp_path / "original")
  found = module.find(tmp_path / "original")
  assert len(found.notes) == len(module.SPLITS)
  assert str(module.COUNTS["train"]) in found.notes[0]
  assert not found.faults
  for split, expected in splits.items():
    monkeypatch.setitem(module.COUNTS, split, len(expected))
  assert not module.find(tmp_path / "original").notes


# A list of each data set, and the file of a picture and a mask that it names.
_FILES = {
  voc2012: (
    "benchmark_RELEASE/dataset/train.txt",
    "benchmark_RELEASE/dataset/img/2009_03.jpg",
    "benchmark_RELEASE/dataset/cls/2009_03.mat",
  ),
  pascal_context: (
    "VOCdevkit/VOC2010/ImageSets/Main/val.txt",
    "VOCdevkit/VOC2010/JPEGImages/2009_02.jpg",
    "trainval/2009_02.mat",
  ),
  sift_flow: (
    "TestSet1.txt",
    f"Images/{_INNER}/coast_b1.jpg",
    f"SemanticLabels/{_INNER}/coast_b1.mat",
  ),
  nyudv2: (
    "nyud/test.txt",
    "nyud/data/images/img_6449.png",
    "nyud/segmentation/img_6449.mat",
  ),
}


@_all(_WRITERS)
def test_a_file_that_a_list_names_and_that_is_not_there_is_a_fault(
  module, tmp_path
):
  folder = tmp_path / "original"
  _WRITERS[module](folder)
  names, picture, mask = _FILES[module]
  (folder / picture).unlink()
  (folder / mask).unlink()
  because = f" is not there, though .*{names} names it"
  _assert_refused(module, tmp_path, folder, picture + because)
  _assert_refused(module, tmp_path, folder, mask + because)


@_all(_WRITERS)
@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "/etc/x", "a b"])
def test_a_line_that_is_no_name_is_a_fault_and_not_opened(
  module, tmp_path, name
):
  folder = tmp_path / "original"
  _WRITERS[module](folder)
  path = folder / _FILES[module][0]
  with path.open("a") as file:
    file.write(f"{name}\n")
  found = module.find(folder)
  (fault,) = found.faults
  assert fault.path == path
  assert repr(name) in fault.reason
  assert all(folder / "secret" != pair.picture for pair in found.pairs)


@_all(_WRITERS)
def test_a_name_twice_in_a_list_is_a_fault(module, tmp_path):
  folder = tmp_path / "original"
  _WRITERS[module](folder)
  path = folder / _FILES[module][0]
  path.write_text(path.read_text() * 2)
  _assert_refused(module, tmp_path, folder, r"in the lines 1 and \d")


@_all(_WRITERS)
@pytest.mark.parametrize(
  ("content", "message"),
  [(None, "is not there"), (b"", "is an empty list"), (b"\xff\xfe", "cannot")],
)
def test_a_broken_list_is_refused_by_name(module, tmp_path, content, message):
  folder = tmp_path / "original"
  _WRITERS[module](folder)
  path = folder / _FILES[module][0]
  if content is None:
    path.unlink()
    message = "is not there|has no list"
  else:
    path.write_bytes(content)
  _assert_refused(module, tmp_path, folder, message)


@_all(_WRITERS)
def test_a_list_may_have_windows_line_ends_and_a_byte_order_mark(
  module, tmp_path
):
  _WRITERS[module](tmp_path)
  pairs = module.find(tmp_path).pairs
  path = tmp_path / _FILES[module][0]
  lines = path.read_text().splitlines()
  path.write_bytes("\r\n".join(["", *lines, " "]).encode("utf-8-sig"))
  found = module.find(tmp_path)
  assert found.pairs == pairs
  assert not found.faults


@_all(_WRITERS)
def test_a_link_to_outside_of_the_folder_is_not_followed(module, tmp_path):
  folder = tmp_path / "original"
  _WRITERS[module](folder)
  mask = folder / _FILES[module][2]
  shutil.copy(mask, tmp_path / "elsewhere.mat")
  mask.unlink()
  mask.symlink_to(tmp_path / "elsewhere.mat")
  _assert_refused(module, tmp_path, folder, f"{mask.name} is.*outside of")


@_all(_WRITERS)
def test_faulty_files_can_be_skipped(module, tmp_path):
  folder = tmp_path / "original"
  splits = _WRITERS[module](folder)
  (folder / _FILES[module][2]).write_bytes(b"")
  faulty = pathlib.Path(_FILES[module][2]).stem.removeprefix("img_")
  _assert_refused(module, tmp_path, folder, "is empty")
  expected = [e for e in splits["train"] if e.name != faulty]
  options = {"extras": tuple(expected[0].extras), "skip_bad": True}
  dataset = _load(module, tmp_path, folder, "train", **options)
  _assert_equal(dataset.source, expected)


@_all(_WRITERS)
def test_a_folder_of_another_layout_is_refused(module, tmp_path):
  (tmp_path / "other" / "pictures").mkdir(parents=True)
  _assert_refused(
    module, tmp_path, tmp_path / "other", "(lacks|expected).*found: pictures"
  )


# The splits of VOC.


def test_splits_can_be_joined(tmp_path):
  folder = tmp_path / "original"
  splits = _write_voc2012(folder)
  dataset = _load(voc2012, tmp_path, folder, "validation+validation2012")
  _assert_equal(
    dataset.source, [*splits["validation"], *splits["validation2012"]]
  )
  for split in ("train+train", "train+", "train+test", "train[:1]"):
    with pytest.raises(ValueError, match="no split"):
      _load(voc2012, tmp_path, folder, split)


def test_no_validation_picture_is_in_the_training_list(tmp_path):
  _write_voc2012(tmp_path)
  names = {split: set() for split in voc2012.SPLITS}
  for pair in voc2012.find(tmp_path).pairs:
    names[pair.split].add(pair.name)
  assert not names["train"] & (names["validation"] | names["validation2012"])
  assert not names["validation"] & names["validation2012"]


def test_the_published_list_of_736_does_in_place_of_voc_2011(tmp_path, packed):
  folder, splits = packed(voc2012)
  (folder / "VOCtrainval_25-May-2011.tar").unlink()
  # Without those of the training list.
  (folder / "seg11valid.txt").write_text("2008_02\n2007_01\n")
  _assert_read(voc2012, tmp_path, folder, splits)
  original = tmp_path / "original"
  shutil.rmtree(original / "TrainVal")
  shutil.copy(folder / "seg11valid.txt", original)
  _assert_read(voc2012, tmp_path, original, splits)
  # Another list is another data set.
  (folder / "seg11valid.txt").write_text("2008_02\n")
  with pytest.raises(ValueError, match="other files"):
    _load(voc2012, tmp_path, folder, "validation")


def test_a_list_beside_archives_must_not_be_a_link_to_elsewhere(
  tmp_path, packed
):
  folder, _ = packed(voc2012)
  (folder / "VOCtrainval_25-May-2011.tar").unlink()
  (tmp_path / "elsewhere.txt").write_text("2008_02\n")
  (folder / "seg11valid.txt").symlink_to(tmp_path / "elsewhere.txt")
  _assert_refused(voc2012, tmp_path, folder, "seg11valid.txt is.*outside of")


def test_without_voc_2011s_list_the_message_says_what_to_get(tmp_path):
  folder = tmp_path / "original"
  _write_voc2012(folder)
  shutil.rmtree(folder / "TrainVal")
  message = r"VOCtrainval_25-May-2011\.tar.*voc2011/; or only seg11valid\.txt"
  _assert_refused(voc2012, tmp_path, folder, message)
  with (
    pytest.raises(ValueError, match=message),
    data.opened("voc2012", folder),
  ):
    pass


def test_a_class_that_voc_does_not_have_is_a_fault(tmp_path):
  folder = tmp_path / "original"
  _write_voc2012(folder)
  path = folder / "VOCdevkit/VOC2012/SegmentationClass/2007_01.png"
  mask = np.full(_SIZE, 21, np.uint8)
  Image.fromarray(mask).save(path)
  _assert_refused(voc2012, tmp_path, folder, r"2007_01\.png has the .*\[21\]")
  _Writer(folder).mat(
    "benchmark_RELEASE/dataset/cls/2008_99.mat", GTcls={"Segmentation": mask}
  )
  _assert_refused(voc2012, tmp_path, folder, r"2008_99\.mat has the .*\[21\]")


# PASCAL-Context's numbers.


def test_each_context_class_has_one_number_of_labels_txt():
  table = pascal_context._CLASS_OF_NUMBER
  assert len(table) == 460
  counts = np.bincount(table)
  assert len(counts) == 60
  assert (counts[1:] == 1).all()
  # Of the numbers of the 59 names in classes-400.txt of that repository.
  numbers = [int(np.flatnonzero(table == i)[0]) for i in range(1, 60)]
  assert _digest(numbers) == "48060aae9f49a2ae"


def test_labels_txt_must_have_the_expected_numbers(tmp_path):
  splits = _write_pascal_context(tmp_path)
  names = {number: name for name, number in pascal_context._NUMBERS.items()}
  names |= {397: "table", 19: "bedclothes", 80: "cloth", 308: "potted plant"}
  lines = [f"{i}: {names.get(i, f'other {i}')}" for i in range(1, 460)]
  (tmp_path / "labels.txt").write_text("\r\n".join(lines))
  assert len(pascal_context.find(tmp_path).pairs) == sum(
    map(len, splits.values())
  )
  lines[8], lines[9] = "9: ball", "10: bag"
  (tmp_path / "labels.txt").write_text("\n".join(lines))
  with pytest.raises(ValueError, match=r"labels\.txt has other .*for bag;"):
    pascal_context.find(tmp_path)


def test_context_labels_may_lie_in_vocs_folder(tmp_path):
  folder = tmp_path / "original"
  splits = _write_pascal_context(folder)
  (folder / "trainval").rename(folder / "VOCdevkit/VOC2010/trainval")
  _assert_read(pascal_context, tmp_path, folder, splits)


# SIFT Flow and NYUDv2.


def test_a_semantic_label_without_its_picture_is_a_fault(tmp_path):
  _write_sift_flow(tmp_path)
  (tmp_path / "Images" / _INNER / "forest_c3.jpg").unlink()
  (fault,) = sift_flow.find(tmp_path).faults
  assert fault.path.name == "forest_c3.jpg"


def test_files_of_the_operating_system_are_no_pictures(tmp_path):
  _write_sift_flow(tmp_path)
  (tmp_path / "Images" / _INNER / "._coast_b1.jpg").write_bytes(b"x")
  (tmp_path / "Images" / _INNER / "Thumbs.db").write_bytes(b"x")
  assert not sift_flow.find(tmp_path).faults


def test_extras_of_another_kind_are_faults(tmp_path):
  folder = tmp_path / "original"
  _write_nyudv2(folder)
  depth = folder / "nyud/data/depth/img_5001.png"
  hha = folder / "nyud/data/hha/img_5002.png"
  shutil.copy(hha, depth)
  _assert_refused(nyudv2, tmp_path, folder, "depth/img_5001.png has colours")
  shutil.copy(folder / "nyud/data/depth/img_5003.png", hha)
  _assert_refused(nyudv2, tmp_path, folder, "hha/img_5002.png has one channel")


def test_the_features_have_the_types_of_the_files():
  assert nyudv2.Nyudv2.EXTRAS["depth"].np_dtype == np.uint16
  assert nyudv2.Nyudv2.EXTRAS["hha"].np_dtype == np.uint8
  assert sift_flow.SiftFlow.EXTRAS["geometric"].np_dtype == np.uint8


def test_the_folder_nyud_itself_may_be_given(tmp_path):
  splits = _write_nyudv2(tmp_path / "original")
  _assert_read(nyudv2, tmp_path, tmp_path / "original" / "nyud", splits)


def test_a_picture_of_two_lists_of_nyud_is_a_fault(tmp_path):
  _write_nyudv2(tmp_path)
  (tmp_path / "nyud" / "test.txt").write_text("6449\n5002\n")
  (fault,) = nyudv2.find(tmp_path).faults
  assert fault.reason == "has 5002, which val.txt has, too; remove one"


# MATLAB files.


def _mat(**variables):
  buffer = io.BytesIO()
  scipy.io.savemat(buffer, variables, do_compression=True)
  return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_a_map_of_any_type_of_number_is_read(dtype):
  expected = np.arange(6).reshape(2, 3)
  ids = matlab.decode_ids(_mat(S=expected.astype(dtype), names="x"), "S")
  np.testing.assert_array_equal(ids, expected)
  assert ids.dtype == np.int32


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", r"is empty \(0 bytes\)"),
    (b"a label map, honestly", "cannot be read as a MATLAB file"),
    (_mat(S=np.ones((99, 99)))[:-20], "cannot be read as a MATLAB file"),
    (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", r"version 7\.3"),
    (_mat(T=np.ones((2, 2))), "has no variable S"),
    (_mat(S="text"), "something other than numbers"),
    (_mat(S={"a": 1}), "something other than numbers"),
    (_mat(S=scipy.sparse.eye(3).tocsc()), "something other than numbers"),
    (_mat(S=np.ones((2, 2), complex)), "something other than numbers"),
    (_mat(S=np.ones((2, 2, 3))), r"of the shape \(2, 2, 3\)"),
    (_mat(S=np.ones((0, 2))), r"of the shape \(0, 2\)"),
    (_mat(S=np.array([[0.5, 1]])), "fractions"),
    (_mat(S=np.array([[np.nan, 1]])), "fractions or no numbers"),
    (_mat(S=np.array([[1, 256]])), "values from 1 to 256 in S.*0 to 255"),
    (_mat(S=np.array([[-1, 5]])), "values from -1 to 5"),
    (_mat(S=np.array([[1, np.inf]])), "to inf"),
  ],
  ids=range(16),
)
def test_a_faulty_matlab_file_says_what_is_wrong(content, message):
  with pytest.raises(ValueError, match=message) as error:
    matlab.decode_ids(content, "S")
  # A paragraph, and a line for each fault.
  assert str(error.value).count("\n") <= 4


@pytest.mark.parametrize(
  "value",
  [{"Other": np.ones((2, 2))}, np.ones((2, 2)), "text"],
  ids=["another field", "no structure", "text"],
)
def test_a_structure_without_the_field_says_so(value):
  with pytest.raises(ValueError, match=r"has no map GTcls\.Segmentation"):
    matlab.decode_ids(_mat(GTcls=value), "GTcls", field="Segmentation")


@pytest.mark.skipif(
  "VOC2012_DIR" not in os.environ, reason="VOC2012_DIR is not set"
)
def test_the_real_lists_give_the_published_counts():
  found = data.datasets.voc2012.find(pathlib.Path(os.environ["VOC2012_DIR"]))
  assert not found.notes

"""What published data sets share: they come in archives."""

import hashlib
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from fcn_jax import data
from fcn_jax.data.datasets import ade20k
from fcn_jax.data.datasets import cityscapes
from fcn_jax.data.datasets import oxford_pets
from tests.data.datasets import test_ade20k
from tests.data.datasets import test_cityscapes
from tests.data.datasets import test_oxford_pets

_MODULES = {
  "ade20k": (ade20k.Ade20k, test_ade20k.make),
  "cityscapes": (cityscapes.Cityscapes, test_cityscapes.make),
  "oxford_pets": (oxford_pets.OxfordPets, test_oxford_pets.make),
}


def _pack(folder, path, top):
  """Packs a folder's part `top`, and what lies loose, as publishers do."""
  loose = [entry.name for entry in folder.iterdir() if entry.is_file()]
  if path.suffix == ".zip":
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
      for name in loose:
        file.write(folder / name, name)
      for entry in sorted((folder / top).rglob("*")):
        file.write(entry, entry.relative_to(folder))
  else:
    with tarfile.open(path, "w:gz") as file:
      file.add(folder / top, top)


@pytest.fixture(params=_MODULES)
def name(request):
  return request.param


@pytest.fixture
def unpacked(name, tmp_path):
  folder = tmp_path / "unpacked"
  _MODULES[name][1](folder)
  return folder


@pytest.fixture
def packed(name, unpacked, tmp_path):
  """A folder of archives, of which the checksums are not those published."""
  folder = tmp_path / "packed"
  folder.mkdir()
  for file, archive in _MODULES[name][0].ARCHIVES.items():
    _pack(unpacked, folder / file, archive.holds)
  return folder


@pytest.fixture
def trusted(name, packed, monkeypatch):
  """Gives the archives' own checksums out as the published ones."""
  builder = _MODULES[name][0]

  def trust():
    known = {}
    for file, archive in builder.ARCHIVES.items():
      digest = hashlib.sha256((packed / file).read_bytes()).hexdigest()
      known[file] = archive._replace(checksum=digest)
    monkeypatch.setattr(builder, "ARCHIVES", known)

  trust()
  return trust


def _load(name, folder, prepared_dir, split="train"):
  return data.load(
    name, split=split, data_dir=folder, prepared_dir=prepared_dir
  )


def _refused(name, folder, tmp_path, message):
  """Asserts that loading fails with one line, and leaves nothing behind."""
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(ValueError, match=message) as error:
    _load(name, folder, tmp_path / "data")
  assert "\n" not in str(error.value)
  assert sorted(tmp_path.rglob("*")) == before
  return str(error.value)


def test_archives_hold_the_same_as_what_was_unpacked_from_them(
  name, unpacked, packed, trusted, tmp_path
):
  for split in _MODULES[name][0].SPLITS:
    first = _load(name, packed, tmp_path / "first", split)
    second = _load(name, unpacked, tmp_path / "second", split)
    assert first.fingerprint == second.fingerprint
    assert first.class_names == second.class_names
    assert len(first.source) == len(second.source)
    for one, other in zip(first.source, second.source, strict=True):
      assert one.name == other.name
      np.testing.assert_array_equal(one.image, other.image)
      np.testing.assert_array_equal(one.label, other.label)


def test_data_prepared_from_archives_are_recognised_without_unpacking(
  name, packed, trusted, tmp_path, monkeypatch
):
  first = _load(name, packed, tmp_path / "data")
  monkeypatch.setattr(data.files.archives, "_unpack", None)
  second = _load(name, packed, tmp_path / "data")
  assert first.fingerprint == second.fingerprint
  shutil.rmtree(packed)
  assert len(_load(name, None, tmp_path / "data").source) == len(first.source)


def test_only_prepared_data_remain(name, packed, trusted, tmp_path):
  _load(name, packed, tmp_path / "data")
  left = [path.name for path in (tmp_path / "data").iterdir()]
  assert [entry for entry in left if entry != "downloads"] == [name]
  assert sorted(path.name for path in packed.iterdir()) == sorted(
    _MODULES[name][0].ARCHIVES
  )


def test_a_missing_archive_is_named_with_its_source(
  name, packed, trusted, tmp_path
):
  for file, archive in _MODULES[name][0].ARCHIVES.items():
    (packed / file).rename(tmp_path / "elsewhere")
    message = _refused(name, packed, tmp_path, "lacks")
    assert file in message
    assert archive.source in message
    (tmp_path / "elsewhere").rename(packed / file)


def test_an_empty_folder_names_all_archives(name, tmp_path):
  (tmp_path / "empty").mkdir()
  message = _refused(name, tmp_path / "empty", tmp_path, "lacks")
  assert all(file in message for file in _MODULES[name][0].ARCHIVES)


def test_an_archive_of_another_checksum_is_refused(
  name, packed, trusted, tmp_path
):
  file = list(_MODULES[name][0].ARCHIVES)[-1]
  with (packed / file).open("ab") as archive:
    archive.write(b"\0")
  _refused(
    name, packed, tmp_path, rf"{file} has the sha256 checksum .*expected"
  )


@pytest.mark.parametrize("name", ["ade20k", "oxford_pets"], indirect=True)
def test_the_published_checksum_refuses_other_archives(name, packed, tmp_path):
  _refused(name, packed, tmp_path, r"checksum .* is expected: it is damaged")


@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_a_truncated_archive_is_refused(name, packed, trusted, tmp_path, share):
  # As if its publisher's checksum were unknown.
  for file in _MODULES[name][0].ARCHIVES:
    path = packed / file
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    trusted()
    message = _refused(name, packed, tmp_path, r"download it again")
    assert file in message
    path.write_bytes(content)
    trusted()


def test_an_archive_with_a_flipped_bit_is_refused(
  name, packed, trusted, tmp_path
):
  for file in _MODULES[name][0].ARCHIVES:
    path = packed / file
    content = path.read_bytes()
    # In the checksum at the end of a gzip file; in the middle of a ZIP file,
    # whose checksums stand there.
    place = len(content) // 3 if path.suffix == ".zip" else len(content) - 6
    flipped = bytes([content[place] ^ 1])
    path.write_bytes(content[:place] + flipped + content[place + 1 :])
    trusted()
    _refused(
      name, packed, tmp_path, rf"{file} cannot be unpacked .*download it again"
    )
    path.write_bytes(content)
    trusted()


def test_an_archive_with_other_contents_is_refused(
  name, packed, trusted, tmp_path
):
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "a.txt").write_text("nothing to see")
  file = next(iter(_MODULES[name][0].ARCHIVES))
  _pack(tmp_path, packed / file, "other")
  trusted()
  _refused(name, packed, tmp_path, r"no folder .*; expected")


def test_without_files_and_prepared_data_the_archives_are_named(name, tmp_path):
  message = _refused(name, None, tmp_path, "is not prepared")
  assert all(file in message for file in _MODULES[name][0].ARCHIVES)

import hashlib
import io
import tarfile
import zipfile

import pytest

from fcn_jax.data.files import archives


def _tar(path, members, mode="w:gz"):
  with tarfile.open(path, mode) as file:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      file.addfile(info, io.BytesIO(content))


def _zip(path, members):
  with zipfile.ZipFile(path, "w") as file:
    for name, content in members.items():
      file.writestr(name, content)


@pytest.fixture
def folder(tmp_path):
  """A folder with one tar and one zip file."""
  root = tmp_path / "downloads"
  root.mkdir()
  _tar(root / "pictures.tar.gz", {"pictures/a.png": b"picture"})
  _zip(root / "masks.zip", {"masks/a.png": b"mask"})
  return root


def _known(folder, **checksums):
  return {
    name: archives.Archive(holds, "the site", checksums.get(holds))
    for name, holds in (
      ("pictures.tar.gz", "pictures"),
      ("masks.zip", "masks"),
    )
  }


def _unpacked(folder, known, scratch):
  return archives.unpacked(
    "sample", folder, known, layout="pictures and masks", scratch=scratch
  )


def test_archives_are_unpacked_for_the_while_and_then_removed(folder, tmp_path):
  scratch = tmp_path / "a" / "b"
  with _unpacked(folder, _known(folder), scratch) as path:
    assert (path / "pictures" / "a.png").read_bytes() == b"picture"
    assert (path / "masks" / "a.png").read_bytes() == b"mask"
  assert not path.exists() and not scratch.exists()
  assert {p.name for p in tmp_path.iterdir()} == {"downloads"}


def test_a_folder_in_which_all_is_unpacked_is_used_as_it_is(folder, tmp_path):
  for name in ("pictures", "masks"):
    (folder / name).mkdir()
  with _unpacked(folder, _known(folder), tmp_path) as path:
    assert path == folder


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_checksums_are_compared(folder, tmp_path, algorithm):
  content = (folder / "masks.zip").read_bytes()
  right = hashlib.new(algorithm, content).hexdigest()
  with _unpacked(folder, _known(folder, masks=right), tmp_path):
    pass
  (folder / "masks.zip").write_bytes(content + b"\0")
  with (
    pytest.raises(ValueError, match=rf"masks\.zip has .* checksum.*{right}"),
    _unpacked(folder, _known(folder, masks=right), tmp_path),
  ):
    pass


def _remove(folder):
  (folder / "masks.zip").unlink()


def _unpack_one(folder):
  (folder / "pictures").mkdir()


def _truncate_tar(folder):
  path = folder / "pictures.tar.gz"
  path.write_bytes(path.read_bytes()[:60])


def _truncate_zip(folder):
  path = folder / "masks.zip"
  path.write_bytes(path.read_bytes()[:-30])


def _damage_zip(folder):
  path = folder / "masks.zip"
  content = bytearray(path.read_bytes())
  content[content.index(b"mask", 35)] ^= 0xFF
  path.write_bytes(bytes(content))


def _escape(folder):
  _tar(folder / "pictures.tar.gz", {"../../escaped.png": b"x"})


def _absolute_link(folder):
  with tarfile.open(folder / "pictures.tar.gz", "w:gz") as file:
    link = tarfile.TarInfo("pictures")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    file.addfile(link)


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_remove, r"lacks masks\.zip or, unpacked, masks.*from the site"),
    (_unpack_one, r"not masks\.zip; unpack"),
    (_truncate_tar, r"pictures\.tar\.gz .*download it again"),
    (_truncate_zip, r"masks\.zip .*download it again"),
    (_damage_zip, r"masks\.zip .*download it again"),
    (_escape, r"pictures\.tar\.gz cannot be unpacked.*outside"),
    (_absolute_link, r"pictures\.tar\.gz cannot be unpacked"),
  ],
  ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_said_and_nothing_is_left(
  folder, tmp_path, damage, message
):
  damage(folder)
  scratch = tmp_path / "scratch" / "inner"
  with (
    pytest.raises(ValueError, match=message) as error,
    _unpacked(folder, _known(folder), scratch),
  ):
    pass
  assert "\n" not in str(error.value)
  assert {p.name for p in tmp_path.iterdir()} == {"downloads"}


def test_a_zip_member_that_leads_outside_lands_inside(folder, tmp_path):
  _zip(folder / "masks.zip", {"../../escaped.png": b"x", "masks/a.png": b"m"})
  with _unpacked(folder, _known(folder), tmp_path / "scratch") as path:
    assert (path / "escaped.png").exists()
  assert {p.name for p in tmp_path.iterdir()} == {"downloads"}


def test_the_fingerprint_of_archives_changes_with_their_contents(folder):
  known = _known(folder)
  before = archives.fingerprint(folder, known)
  _zip(folder / "masks.zip", {"masks/a.png": b"other"})
  assert archives.fingerprint(folder, known) != before
  (folder / "masks.zip").unlink()
  assert archives.fingerprint(folder, known) is None


def _encrypted(path):
  """The flag of a password on every entry, in both places."""
  _zip(path, {"masks/a.png": b"mask"})
  content = bytearray(path.read_bytes())
  content[6] |= 1
  content[content.index(b"PK\x01\x02") + 8] |= 1
  path.write_bytes(content)


def _of_method(method):
  def write(path):
    _zip(path, {"masks/a.png": b"mask"})
    content = bytearray(path.read_bytes())
    content[8:10] = method.to_bytes(2, "little")
    start = content.index(b"PK\x01\x02") + 10
    content[start : start + 2] = method.to_bytes(2, "little")
    path.write_bytes(content)

  return write


@pytest.mark.parametrize(
  "write, message",
  [
    (_encrypted, "password required"),
    (_of_method(99), "compression method is not supported"),
    (_of_method(8), "Bad CRC-32"),
    (_of_method(14), "cannot be unpacked"),
    (lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), "not a zip file"),
    (lambda path: path.write_bytes(b""), "not a zip file"),
  ],
)
def test_odd_zip_files_are_refused_in_a_paragraph(
  folder, tmp_path, write, message
):
  write(folder / "masks.zip")
  with (
    pytest.raises(ValueError, match=message) as raised,
    _unpacked(folder, _known(folder), tmp_path),
  ):
    pass
  assert "masks.zip cannot be unpacked" in str(raised.value)
  assert "\n" not in str(raised.value)
  assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


@pytest.mark.parametrize("time", [2**70, -(2**60), 1e300, float("inf")])
def test_times_in_tar_files_do_not_matter(folder, tmp_path, time):
  with tarfile.open(
    folder / "pictures.tar.gz",
    "w:gz",
    format=tarfile.GNU_FORMAT if type(time) is int else tarfile.PAX_FORMAT,
  ) as file:
    info = tarfile.TarInfo("pictures/a.png")
    info.size, info.mtime = 7, time
    if type(time) is float:
      info.mtime, info.pax_headers = 0, {"mtime": str(time)}
    file.addfile(info, io.BytesIO(b"picture"))
  with _unpacked(folder, _known(folder), tmp_path) as path:
    assert (path / "pictures" / "a.png").read_bytes() == b"picture"

"""Tests of the files that are fetched by name, from a server on loopback."""

import hashlib
import http.server
import pathlib
import threading

import pytest

import fcn_jax as fcn
from fcn_jax.cli import published
from fcn_jax.pretrained import fetching

_CONTENT = b"weights" * 1000
_FILE = "weights-0123.pth"


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.server.requests.append(self.path)
    content = _CONTENT if self.path == f"/{_FILE}" else None
    if content is None:
      self.send_error(404)
      return
    self.send_response(200)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content[: self.server.limit])

  def log_message(self, *arguments):
    """Prints nothing."""


@pytest.fixture
def server(monkeypatch, tmp_path):
  """A publisher of one file, and a working directory without any."""
  monkeypatch.chdir(tmp_path)
  with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
    server.requests, server.limit = [], None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    digest = hashlib.sha256(_CONTENT).hexdigest()[:8]
    _publish(monkeypatch, server, f"sha256:{digest}")
    yield server
    server.shutdown()
    thread.join()


def _publish(monkeypatch, server, checksum, file=_FILE):
  url = f"http://127.0.0.1:{server.server_address[1]}/{file}"
  source = fetching.Source("resnet50", url, checksum, 1, "none")
  monkeypatch.setitem(fetching.SOURCES, "made", source)


def test_a_file_is_downloaded_once(server, tmp_path):
  path = fcn.pretrained.fetch("made", tmp_path / "cache")
  assert path == tmp_path / "cache" / _FILE
  assert path.read_bytes() == _CONTENT
  assert fcn.pretrained.fetch("made", tmp_path / "cache") == path
  assert server.requests == [f"/{_FILE}"]
  assert [entry.name for entry in path.parent.iterdir()] == [_FILE]


def test_a_file_in_the_working_directory_is_taken(server, tmp_path):
  (tmp_path / _FILE).write_bytes(_CONTENT)
  assert fcn.pretrained.fetch("made", tmp_path / "cache") == pathlib.Path(_FILE)
  assert not server.requests


def test_a_file_without_a_checksum_is_taken_as_it_is(
  server, tmp_path, monkeypatch
):
  _publish(monkeypatch, server, None)
  assert fcn.pretrained.fetch("made", tmp_path).read_bytes() == _CONTENT


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_wrong_file_is_refused_and_kept_if_it_was_there(
  server, tmp_path, monkeypatch, place
):
  _publish(monkeypatch, server, "sha1:" + "0" * 40)
  if place == "here":
    (tmp_path / _FILE).write_bytes(b"mine")
  remedy = {"here": "is left as it is", "there": "is not kept"}[place]
  with pytest.raises(ValueError, match=f"SHA1 begins with .* {remedy}"):
    fcn.pretrained.fetch("made", tmp_path)
  kept = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
  assert kept == ([b"mine"] if place == "here" else [])


@pytest.mark.parametrize("fault", ["no file", "no server", "cut"])
def test_a_failed_download_says_which_file_to_bring(
  server, tmp_path, monkeypatch, fault
):
  if fault == "no file":
    _publish(monkeypatch, server, None, "other.pth")
  elif fault == "no server":
    source = fetching.SOURCES["made"]._replace(
      url=f"http://127.0.0.1:9/{_FILE}"
    )
    monkeypatch.setitem(fetching.SOURCES, "made", source)
  else:
    server.limit = 100
  with pytest.raises(OSError, match=r"cannot be downloaded .* put it here as"):
    fcn.pretrained.fetch("made", tmp_path)
  assert not list(tmp_path.iterdir())


def test_an_unknown_name_lists_the_known_ones():
  with pytest.raises(ValueError, match=r"'vgg'.* known ones are fcn_resnet50"):
    fcn.pretrained.fetch("vgg")


def test_the_cache_can_be_moved(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert fetching.cache_dir() == tmp_path / "fcn_jax" / "weights"


def test_every_source_is_of_a_network_that_can_be_imported():
  networks = {source.network for source in fetching.SOURCES.values()}
  assert networks == set(published.NETWORKS)


def test_the_documentation_has_every_source():
  rows = [
    f"| `{name}` | [{source.file}]({source.url}) | {source.size or '?'} | "
    f"{source.checksum or 'none'} | {source.licence} |"
    for name, source in fetching.SOURCES.items()
  ]
  page = pathlib.Path(__file__).parents[2] / "docs" / "networks_and_weights.md"
  assert "\n".join(rows) in page.read_text(encoding="utf-8")


def test_released_files_have_the_authors_addresses():
  for name, released in fcn.models.released.NETWORKS.items():
    if name in fetching.SOURCES:
      url = fcn.models.released.SERVER + released.file
      assert fetching.SOURCES[name].url == url

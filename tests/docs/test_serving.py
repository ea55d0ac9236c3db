"""The server of the page on serving, under load and with bad files."""

import collections
import concurrent.futures
import http.client
import io
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import predict
from tests.helpers import random_runs
from tests.helpers import tiny_networks

pytest.importorskip("flask", reason="of the extra `test`")
pytest.importorskip("waitress", reason="of the extra `test`")

pytestmark = pytest.mark.long

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
NAMES = ("ground", "water", "tree")
PALETTE = np.array([[10, 20, 30], [0, 0, 250], [0, 200, 0]], np.uint8)
SIZES = ((90, 120), (120, 90), (64, 64), (50, 127))
# Small ones, so that the test is over soon.
LIMITS = {
  "MAX_BYTES": "200_000",
  "MAX_MEGAPIXELS": "0.02",
  "SIZES": "[(64, 96), (96, 128), (128, 128)]",
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "run",
    tiny_networks.picture(90, 120),
    names=NAMES,
    palette=PALETTE,
  )


@pytest.fixture(scope="module")
def server(workdir, tmp_path_factory):
  """The process of the server, and its port."""
  folder = tmp_path_factory.mktemp("server")
  network = fcn.runs.load(workdir, "best")
  fcn.inference.export(
    folder / "network.zip",
    network.model,
    network.variables,
    class_names=NAMES,
    palette=PALETTE,
  )
  (code,) = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
  for name, value in LIMITS.items():
    code, count = re.subn(
      f"^{name} = .*$", f"{name} = {value}", code, flags=re.M
    )
    assert count == 1
  (folder / "server.py").write_text(code)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  with (folder / "log").open("w+") as log:
    process = subprocess.Popen(
      [sys.executable, "server.py", str(port)],
      cwd=folder,
      env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")},
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      wait_for(process, port, folder / "log")
      yield process, port
    finally:
      process.terminate()
      process.wait(timeout=60)


def wait_for(process, port, log):
  for _ in range(600):
    assert process.poll() is None, log.read_text()
    with socket.socket() as one:
      if one.connect_ex(("127.0.0.1", port)) == 0:
        return
    time.sleep(0.5)
  raise AssertionError(f"the server does not answer: {log.read_text()}")


def post(port, body, path="/classes"):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
  try:
    connection.request("POST", path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()
  finally:
    connection.close()


def encoded(image, kind="PNG"):
  buffer = io.BytesIO()
  image.save(buffer, format=kind)
  return buffer.getvalue()


def bad_files():
  """Files, with the status and the begin of the answer."""
  whole = encoded(Image.fromarray(tiny_networks.picture(90, 120)))
  deep = Image.fromarray(np.full((9, 9), 999, np.uint16))
  return {
    "cut": (whole[:-700], 400, "the file cannot be read as a picture"),
    "empty": (b"", 400, "the file is empty"),
    "text": (b"no picture", 400, "the file cannot be read as a picture"),
    "eps": (
      encoded(Image.new("RGB", (9, 9)), "EPS"),
      415,
      "the file is PostScript, a program that is not run here",
    ),
    "deep": (encoded(deep), 415, "the file has more than 8 bits a channel"),
    "bomb": (
      encoded(Image.new("1", (20000, 20000))),
      413,
      "the file is too large: 20000x20000 pixels",
    ),
    "long": (
      encoded(Image.new("RGB", (1000, 3))),
      413,
      "the file has 1000x3 pixels: too long a side",
    ),
    "many bytes": (bytes(300_000), 413, "the file has more than 200000 bytes"),
  }


def memory_and_threads(process):
  status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
  return tuple(
    int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])
    for name in ("VmRSS", "Threads")
  )


def test_64_requests_at_a_time_get_what_they_deserve(
  server, workdir, tmp_path, capsys
):
  process, port = server
  good = {
    f"{number}": tiny_networks.picture(*size, seed=number)
    for number, size in enumerate(SIZES * 8)
  }
  for name, picture in good.items():
    (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(picture)))
  predict.main(
    [
      *(str(tmp_path / f"{name}.png") for name in good),
      *("--workdir", str(workdir), "--out", str(tmp_path / "out")),
    ]
  )
  bad = bad_files()
  requests = [(name, (tmp_path / f"{name}.png").read_bytes()) for name in good]
  requests += [(name, content) for name, (content, *_) in bad.items()] * 4
  assert len(requests) == 64
  before = None
  for _ in range(2):
    with concurrent.futures.ThreadPoolExecutor(64) as clients:
      answers = list(
        clients.map(lambda request: post(port, request[1]), requests)
      )
    assert process.poll() is None
    statuses = collections.Counter(status for status, _ in answers)
    assert statuses == {200: 32, 400: 12, 413: 12, 415: 8}
    for (name, _), (status, answer) in zip(requests, answers, strict=True):
      if name in bad:
        _, expected, begin = bad[name]
        text = answer.decode()
        assert (status, text[: len(begin)]) == (expected, begin)
        assert text.endswith(".\n") and text.count("\n") == 1
        continue
      found = np.asarray(Image.open(io.BytesIO(answer)))
      path = tmp_path / "out" / "classes" / f"{name}.png"
      with Image.open(path) as expected:
        assert np.mean(found != np.asarray(expected)) < 1e-3
      assert len(np.unique(found)) > 1
    if sys.platform == "linux":
      memory, threads = memory_and_threads(process)
      if before is not None:
        # Nothing is kept of the requests.
        assert memory < before[0] + 100_000 and threads <= before[1]
      before = memory, threads


def test_an_overlay_is_a_painted_picture(server):
  _, port = server
  content = encoded(Image.fromarray(tiny_networks.picture(90, 120)))
  status, answer = post(port, content, "/overlay")
  assert status == 200
  with Image.open(io.BytesIO(answer)) as overlay:
    assert overlay.format == "JPEG" and overlay.height > 90


def test_other_addresses_are_answered(server):
  _, port = server
  status, answer = post(port, b"", "/probabilities")
  assert (status, answer) == (404, b"there are /classes and /overlay.\n")

import json
import time

import numpy as np
import pytest

from fcn_jax import strict_json

HOSTILE = {
  "deep": (b"[" * 1_000_000, "more than 64 levels"),
  "65 levels": (b"[" * 65 + b"]" * 65, "more than 64 levels"),
  "deep objects": (b'{"a":' * 900 + b"1" + b"}" * 900, "more than 64 levels"),
  "long number": (b"[" + b"9" * 1_000_000 + b"]", "number of 1000000 digits"),
  "large number": (b"[1e999]", "1e999, which is too large"),
  "NaN": (b"[NaN]", "NaN, which is no JSON"),
  "infinity": (b'{"a": -Infinity}', "-Infinity, which is no JSON"),
  "twice": (b'{"a": 1, "b": 2, "a": 3}', "'a' twice in one object"),
  "not UTF-8": (b'["\xff"]', "can't decode byte"),
  "cut": (b'{"a": [1', "delimiter"),
  "empty": (b"", "Expecting value"),
  "two values": (b"1 2", "Extra data"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_json_or_would_harm_is_refused(case, tmp_path):
  content, message = HOSTILE[case]
  path = tmp_path / "a.json"
  path.write_bytes(content)
  start = time.process_time()
  with pytest.raises(ValueError, match=message) as raised:
    strict_json.read(path)
  assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)
  assert time.process_time() - start < 2


def test_values_are_those_of_pythons_reader():
  generator = np.random.default_rng(0)
  state = generator.bit_generator.state
  value = {"a": [1, -2.5, None, True, "\u00e4\U0001f600"], "": {}, "b": state}
  for ascii_only in (False, True):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(text) == value
    assert strict_json.loads(b"\xef\xbb\xbf" + text.encode()) == value


def test_64_levels_are_read():
  assert strict_json.loads("[" * 64 + "]" * 64) == eval("[" * 64 + "]" * 64)


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr(strict_json, "_MOST_BYTES", 4)
  path = tmp_path / "a.json"
  path.write_text("[1, 2]")
  with pytest.raises(ValueError, match="more than 4 bytes"):
    strict_json.read(path)

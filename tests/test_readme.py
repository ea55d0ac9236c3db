"""The README's example runs as printed."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_library_example_runs(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  (code,) = re.findall("```python\n(.*?)```", README.read_text(), re.DOTALL)
  # A smaller data set and fewer steps, to be done in seconds.
  assert '"shapes"' in code and "range(200)" in code
  code = code.replace('"shapes"', '"shapes/tiny"').replace(
    "range(200)", "range(2)"
  )
  names = {}
  exec(code, names)
  assert int(names["state"].step) == 2
  assert names["classes"].shape == (8, 96, 96)

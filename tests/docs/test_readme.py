"""The README's example runs as printed."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parents[2] / "README.md"


def blocks():
  return re.findall("```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.slow
def test_library_example_runs(tmp_path):
  (code,) = blocks()
  # A smaller data set and fewer steps, to be done in seconds.
  assert '"shapes"' in code
  assert "range(200)" in code
  code = code.replace('"shapes"', '"shapes/tiny"').replace("(200)", "(2)")
  code += "\nassert int(state.step) == 2\nprint(classes.shape, classes.dtype)"
  script = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stderr
  assert script.stdout == "(8, 96, 96) int32\n"

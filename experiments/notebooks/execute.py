"""Runs the notebooks, and stores them with their outputs.

    python -m experiments.notebooks.execute
    python -m experiments.notebooks.execute loss_sampling --out /tmp/seen

Each notebook runs in a new folder of its own, with the package that is
installed for this Python. Its files are gone afterwards. What is stored has no
progress bars, no times of execution and no paths of this machine.
"""

import base64
import dataclasses
import io
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Annotated

import nbclient
import nbformat
import PIL.Image
import tyro

FOLDER = pathlib.Path(__file__).parent
# Width and height of a picture, in pixels.
_LARGEST = (800, 1130)
# A progress bar: 38%|### |
_BAR = re.compile(r"\d+%\|")
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))


@dataclasses.dataclass(frozen=True)
class Options:
  """Which notebooks to run, and where to store them."""

  names: Annotated[tuple[str, ...], tyro.conf.Positional] = NAMES
  """Notebooks, without .ipynb; all by default."""
  out: pathlib.Path = FOLDER
  """Folder to write to."""
  timeout: int = 3600
  """Seconds after which a cell is stopped."""


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, and runs."""
  options = tyro.cli(Options, description=__doc__, args=arguments)
  options.out.mkdir(parents=True, exist_ok=True)
  for name in options.names:
    before, start = os.times(), time.perf_counter()
    notebook = executed(FOLDER / f"{name}.ipynb", timeout=options.timeout)
    seconds, after = time.perf_counter() - start, os.times()
    # That of the kernel and of the programs that it started.
    processor = (
      after.children_user
      + after.children_system
      - before.children_user
      - before.children_system
    )
    path = options.out / f"{name}.ipynb"
    nbformat.write(notebook, path)
    print(
      f"{path}: {seconds:.0f} s, of which the processors worked "
      f"{processor:.0f} s; {path.stat().st_size / 1e3:.0f} kB",
      flush=True,
    )


def executed(path: pathlib.Path, *, timeout: int) -> nbformat.NotebookNode:
  """Runs a notebook in a new folder; returns it with clean outputs.

  Args:
    path: the notebook.
    timeout: seconds after which a cell is stopped.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed.
  """
  notebook = nbformat.read(path, as_version=4)
  with tempfile.TemporaryDirectory() as folder:
    # Its prepared data sets, too, are its own.
    data = os.path.join(folder, "tensorflow_datasets")
    nbclient.NotebookClient(
      notebook,
      timeout=timeout,
      resources={"metadata": {"path": folder}},
      record_timing=False,
      coalesce_streams=True,
    ).execute(env={**_environment(), "TFDS_DATA_DIR": data})
    _clean(notebook, os.path.join(os.path.realpath(folder), ""))
  return notebook


def _environment() -> dict[str, str]:
  """The variables of this process, with the commands beside its Python."""
  commands = os.path.dirname(sys.executable)
  return {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


def _clean(notebook: nbformat.NotebookNode, folder: str) -> None:
  """Removes what differs from run to run, and what only takes space."""
  notebook.metadata.language_info = {"name": "python"}
  for cell in notebook.cells:
    if cell.cell_type != "code":
      continue
    # Progress bars are written to stderr.
    cell.outputs = [
      output for output in cell.outputs if output.get("name") != "stderr"
    ]
    for output in cell.outputs:
      if "text" in output:
        output.text = _shown(output.text).replace(folder, "")
      data = output.get("data", {})
      # Pillow shows a picture in both formats.
      data.pop("image/jpeg", None)
      for kind in data:
        if kind == "image/png":
          data[kind] = _smaller(data[kind])
        elif kind.startswith("text/"):
          data[kind] = data[kind].replace(folder, "")


def _shown(text: str) -> str:
  """What a terminal shows in the end, without progress bars."""
  lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
  return "\n".join(line for line in lines if not _BAR.search(line))


def _smaller(picture: str) -> str:
  """A picture for the screen, in 256 colours; base64 as in the notebook."""
  pixels = PIL.Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
  pixels.thumbnail(_LARGEST)
  file = io.BytesIO()
  pixels.quantize(256, dither=PIL.Image.Dither.NONE).save(
    file, "PNG", optimize=True
  )
  return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
  main()

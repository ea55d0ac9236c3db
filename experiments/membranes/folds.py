"""The stack of slices, cut into folds of neighbouring ones."""

import os
import pathlib
import shutil

ENVIRONMENT = "MEMBRANES_DIR"
NUM_FOLDS = 5


def find(folder: pathlib.Path | None) -> pathlib.Path:
  """The folder of the slices: the given one, or that of the environment.

  Raises:
    ValueError: if there is none, or it holds too few slices.
  """
  if folder is None and ENVIRONMENT in os.environ:
    folder = pathlib.Path(os.environ[ENVIRONMENT])
  if folder is None:
    raise ValueError(
      "the slices are missing: give their folder as --data-dir, or in the "
      f"environment variable {ENVIRONMENT}. It holds images/ and masks/, such "
      "as the 30 slices of the ISBI 2012 challenge, named in their order."
    )
  for name in ("images", "masks"):
    if not (folder / name).is_dir():
      raise ValueError(
        f"{folder} has no folder {name}: it must hold images/ and masks/."
      )
  if len(_names(folder / "images")) < NUM_FOLDS:
    raise ValueError(
      f"{folder / 'images'} holds fewer than {NUM_FOLDS} slices, which cannot "
      f"be cut into {NUM_FOLDS} folds."
    )
  return folder


def make(source: pathlib.Path, folder: pathlib.Path, fold: int) -> None:
  """Copies the slices into train/ and validation/ of a folder.

  Neighbouring slices are alike, so a fold is a contiguous part of the stack.

  Args:
    source: the folder of the slices.
    folder: where to; nothing is done if it is there.
    fold: 0..NUM_FOLDS - 1, the part that is for validation.
  """
  if folder.is_dir():
    return
  partial = folder.with_name(f"{folder.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  for kind in ("images", "masks"):
    names = _names(source / kind)
    first, last = (
      number * len(names) // NUM_FOLDS for number in (fold, fold + 1)
    )
    for index, name in enumerate(names):
      split = "validation" if first <= index < last else "train"
      (partial / split / kind).mkdir(parents=True, exist_ok=True)
      shutil.copyfile(source / kind / name, partial / split / kind / name)
  partial.rename(folder)


def _names(folder: pathlib.Path) -> list[str]:
  return sorted(
    file.name for file in folder.iterdir() if not file.name.startswith(".")
  )

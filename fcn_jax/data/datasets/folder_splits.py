"""Which pictures in a user's folder are for which split."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from fcn_jax import reprs
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import other_kinds

# What people call the folder of a split, and those of pictures and masks, in
# upper or lower case. The first are those of the documentation.
NAMES = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid", "dev"),
  "test": ("test", "testing"),
}
_PICTURES = ("images", "image", "imgs", "img", "pictures", "photos")
_MASKS = (
  "masks", "mask", "labels", "label", "annotations", "annotation", "gt",
  "groundtruth", "ground_truth", "segmentations", "segmentation", "targets",
)  # fmt: skip
# Files that operating systems leave in folders.
_LITTER = ("thumbs.db", "desktop.ini")

Folders = Mapping[str, tuple[pathlib.Path, pathlib.Path]]


def find(
  folder: pathlib.Path, layout: str, *, to_train: bool = True
) -> Folders:
  """Finds the folders of pictures and masks of each split.

  Args:
    folder: the folder that the user gave.
    layout: what must be in it, to be read after "expected".
    to_train: whether there must be pictures to train on.

  Returns:
    A folder of pictures and a folder of masks by split; "train" alone if there
    are no folders for splits.

  Raises:
    ValueError: a folder is missing, a split has two, there is none to train on,
      or pictures lie beside the folders of the splits.
  """
  found = {}
  for split, images, masks in _candidates(folder):
    for path in (images, masks):
      if not path.is_dir():
        raise ValueError(
          f"folder: there is no folder {path}; expected {layout}"
        )
    if split in found:
      raise ValueError(
        f"folder: {found[split][0]} and {images} are both for {split}; put the"
        " pictures into one of them, and their masks likewise"
      )
    found[split] = images, masks
  if not found:
    images, masks = _child(folder, _PICTURES), _child(folder, _MASKS)
    if not (images and masks):
      listing.check_folders("folder", folder, ("images", "masks"), layout)
    return {"train": (images, masks)}
  if to_train and "train" not in found:
    raise ValueError(
      f"folder: {folder} has {', '.join(found)}, but nothing to train on;"
      f" expected {layout}"
    )
  loose = [
    path
    for parent in (_child(folder, _PICTURES), _child(folder, _MASKS))
    if parent
    for path in parent.iterdir()
    if path.suffix.lower() in decoding.SUFFIXES and not path.is_dir()
  ]
  if loose:
    raise ValueError(
      f"folder: {loose[0]} and {len(loose) - 1} more files are in no split,"
      f" beside {', '.join(str(images) for images, _ in found.values())}; move"
      " them into one"
    )
  return found


def _candidates(
  folder: pathlib.Path,
) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """Splits with a folder of pictures, or of masks, and both these folders."""
  top = _child(folder, _PICTURES), _child(folder, _MASKS)
  found = []
  for split, names in NAMES.items():
    for name in names:
      inner = [
        (
          _child(parent, _PICTURES) or parent / "images",
          _child(parent, _MASKS) or parent / "masks",
        )
        for parent in _children(folder, name)
      ]
      # In each of images/ and masks/; a split may have another name there.
      below = [parent and _child(parent, (name, *names)) for parent in top]
      exact = [parent and _child(parent, (name,)) for parent in top]
      if any(exact):
        images, masks = (
          path or (parent or folder / kind) / name
          for path, parent, kind in zip(
            below, top, ("images", "masks"), strict=True
          )
        )
        inner.append((images, masks))
      found += [
        (split, *pair) for pair in inner if pair[0].is_dir() or pair[1].is_dir()
      ]
  return list(dict.fromkeys(found))


def split_of(name: str) -> str:
  """The split that a name stands for; "train" if it stands for none."""
  for split, names in NAMES.items():
    if name.lower() in names:
      return split
  return "train"


def _children(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Folders of a name, in upper or lower case."""
  with os.scandir(folder) as entries:
    return sorted(
      folder / entry.name
      for entry in entries
      if entry.name.lower() == name and entry.is_dir()
    )


def _child(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
  """The folder of the first of some names that is there.

  Raises:
    ValueError: there are two that differ in upper and lower case.
  """
  for name in names:
    found = _children(folder, name)
    if len(found) > 1:
      raise ValueError(
        f"folder: {found[0]} and {found[1]} differ in upper and lower case"
        " only; join them"
      )
    if found:
      return found[0]
  return None


def renamed(folder: pathlib.Path, folders: Folders) -> list[str]:
  """Notes on folders that have other names than the documented ones.

  Args:
    folder: the folder that the user gave.
    folders: those that are used.
  """
  plain = {"images", "masks", *NAMES, "val", "valid"}
  notes = []
  for split, pair in folders.items():
    images, masks = (path.relative_to(folder) for path in pair)
    if not plain.issuperset((*images.parts, *masks.parts)):
      notes.append(
        f"{split}: pictures in {reprs.path(images)}, masks in"
        f" {reprs.path(masks)}"
      )
  return notes


def unused(folder: pathlib.Path, folders: Folders) -> list[str]:
  """Notes on folders with pictures that are in no split.

  Args:
    folder: the folder that the user gave.
    folders: those that are used.
  """
  used = [path for pair in folders.values() for path in pair]
  above = {parent for path in used for parent in path.parents}
  places = [
    path
    for parent in sorted({folder} | {p for p in above if folder in p.parents})
    for path in sorted(parent.iterdir())
    if path.is_dir()
    and not path.name.startswith((".", "__MACOSX"))
    and path not in used
    and path not in above
  ]
  return [
    f"not used: {reprs.path(path.relative_to(folder))}, which holds pictures"
    f" such as {reprs.path(picture.name)}"
    for path in places
    if (picture := _first_picture(path))
  ]


def _first_picture(folder: pathlib.Path) -> pathlib.Path | None:
  return next(
    (
      path
      for path in folder.rglob("*")
      if path.suffix.lower() in decoding.SUFFIXES
      and not path.name.startswith(".")
      and path.is_file()
    ),
    None,
  )


def other_files(folders: Folders) -> str:
  """Names files without the suffix of a picture, hidden ones left out.

  Returns:
    A note; empty if there are none.
  """
  names = _other_files(folders)
  if not names:
    return ""
  note = (
    f"{len(names)} files do not have the suffix of a picture:"
    f" {', '.join(map(reprs.path, names[:5]))}"
  )
  note += ", ..." if len(names) > 5 else ""
  # One of each kind.
  examples = {
    kind: name for name in names[::-1] if (kind := other_kinds.of_name(name))
  }
  for kind, name in list(examples.items())[:5]:
    note += f"; {reprs.path(name)} {kind.reason}"
  return note


def _other_files(folders: Folders) -> list[str]:
  return sorted(
    path.name
    for pair in folders.values()
    for folder in pair
    for path in folder.rglob("*")
    if path.is_file()
    and path.suffix.lower() not in decoding.SUFFIXES
    and not path.name.startswith(".")
    and path.name.lower() not in _LITTER
  )

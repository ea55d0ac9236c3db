"""Recognises what annotation tools export, and reads the VOC layout of masks.

The layout of PASCAL VOC is what converters write, and CVAT and labelme too:

    JPEGImages/a.jpg
    SegmentationClass/a.png           palette or colours
    ImageSets/Segmentation/train.txt  names, if there are splits
    labelmap.txt or class_names.txt   names of the classes

Outlines in JSON or XML are not read: docs/your_own_pictures.md has the commands
that turn them into this layout.
"""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from fcn_jax import reprs
from fcn_jax import strict_json
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import folder_splits
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import listing

PICTURES, MASKS = "JPEGImages", "SegmentationClass"
_LISTS = "ImageSets/Segmentation"
# Of the files of an export, the first few tell what it is.
_MAX_FILES = 20


def recognize(folder: pathlib.Path) -> str | None:
  """Says which tool's annotations a folder holds, and in which file."""
  for name, patterns in {
    "Roboflow (COCO)": ("_annotations.coco.json", "*/_annotations.coco.json"),
    "COCO": ("annotations/*.json", "*/annotations/*.json", "*.json"),
    "CVAT": ("annotations.xml", "*/annotations.xml"),
    "Supervisely": ("ann/*.json", "*/ann/*.json"),
    "labelme": ("*.json", "*/*.json"),
  }.items():
    paths = itertools.chain.from_iterable(map(folder.glob, patterns))
    for path in itertools.islice(paths, _MAX_FILES):
      if _SIGNS[name] in _beginning(path):
        return f"{name}, such as {reprs.path(path)}"
  return None


# What the first bytes of the files hold.
_SIGNS = {
  "Roboflow (COCO)": '"',
  "COCO": '"images"',
  "CVAT": "<annotations",
  "Supervisely": '"objects"',
  "labelme": '"shapes"',
}


def _beginning(path: pathlib.Path) -> str:
  try:
    with path.open("rb") as file:
      return file.read(1 << 16).decode("utf-8", "replace")
  except OSError:
    return ""


def is_voc(folder: pathlib.Path) -> bool:
  """Whether a folder has the layout of PASCAL VOC."""
  return (folder / PICTURES).is_dir() and (folder / MASKS).is_dir()


def splits(folder: pathlib.Path) -> dict[str, str]:
  """The split of each name in the lists; empty without lists.

  Raises:
    ValueError: a list cannot be read, or two lists hold a name.
  """
  found: dict[str, str] = {}
  for path in sorted((folder / _LISTS).glob("*.txt")):
    split = folder_splits.split_of(path.stem)
    if path.stem.lower() == "trainval":
      continue  # The union of two others.
    try:
      names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"folder: {path} cannot be read as a list of names ({error}); export it"
        " again"
      ) from error
    for name in filter(None, map(str.strip, names)):
      name = name.removeprefix('"').removesuffix('"')
      if found.setdefault(name, split) != split:
        raise ValueError(
          f"folder: {reprs.path(name)} is in the lists of {found[name]} and"
          f" {split} in {folder / _LISTS}; remove it from one"
        )
  return found


def assign(
  folder: pathlib.Path,
  pairs: Sequence[listing.Pair],
  faults: Sequence[listing.Fault],
  split_of: Mapping[str, str],
) -> tuple[list[listing.Pair], list[listing.Fault], list[str]]:
  """Puts pairs into the splits of the lists, and leaves out what no list has.

  Returns:
    The pairs, the faults of what is listed, and notes.
  """
  if not split_of:
    return list(pairs), list(faults), []
  listed = [pair for pair in pairs if pair.name in split_of]
  kept = [fault for fault in faults if _name(folder, fault.path) in split_of]
  present = {pair.name for pair in listed}
  present |= {_name(folder, fault.path) for fault in kept}
  kept += [
    listing.Fault(
      folder / PICTURES / name, f"is in a list of {_LISTS}, but not there"
    )
    for name in split_of
    if name not in present
  ]
  several = len({split_of[pair.name] for pair in listed}) > 1
  assigned = []
  for split in folder_splits.NAMES:
    assigned += [
      pair._replace(
        split=split, name=f"{split}/{pair.name}" if several else pair.name
      )
      for pair in listed
      if split_of[pair.name] == split
    ]
  notes = [f"splits are those of the lists in {_LISTS}"]
  left_out = len(pairs) - len(listed) + len(faults) - len(kept)
  if left_out > 0:
    notes.append(f"{left_out} files are in no list of {_LISTS} and not used")
  return assigned, kept, notes


def _name(folder: pathlib.Path, path: pathlib.Path) -> str:
  for parent in (folder / PICTURES, folder / MASKS):
    if path.is_relative_to(parent):
      return path.relative_to(parent).with_suffix("").as_posix()
  return path.name


def classes(folder: pathlib.Path) -> class_table.ClassTable | None:
  """The table of classes of labelmap.txt or class_names.txt, if there is one.

  Raises:
    ValueError: the file has a fault.
  """
  for path in (folder / "labelmap.txt", folder / "class_names.txt"):
    if path.is_file():
      reason = listing.why_not_readable(path, folder)
      if reason:
        raise ValueError(f"folder: {path} {reason}")
      return class_table.of_entries(list(_entries(path)), path)
  return None


def _entries(path: pathlib.Path) -> Iterator[str | dict[str, object]]:
  """The classes as in classes.json."""
  try:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f"folder: {path} cannot be read ({error})") from error
  lines = [line for line in map(str.strip, lines) if line and line[0] != "#"]
  if path.name == "class_names.txt":
    yield from lines
    return
  colors = palettes.voc_palette(num_classes=min(len(lines), 256))
  for line, color in zip(lines, colors, strict=False):
    # name:r,g,b:parts:actions; without r,g,b, the colours of VOC in their
    # order.
    name, numbers, *_ = [*line.split(":"), "", ""]
    try:
      found = strict_json.loads(f"[{numbers}]")
    except ValueError as error:
      raise ValueError(
        f"folder: {path} has the line {line!r} in place of name:r,g,b::"
      ) from error
    yield {"name": name, "color": found or list(color)}

"""The data set `folder`: pictures and masks of your own.

    images/cat.jpg      a picture in any common format
    masks/cat.png       its labels: grey, palette or colours, without loss

or the same in each of train/, validation/ (or val/, valid/) and test/, or
images/train/ and so on. Without a folder for validation, a fifth of the
pictures is, chosen by a hash of their names, so that the choice stays when
pictures are added.

What the values of the masks mean stands in an optional `classes.json`:

    {"classes": [{"name": "background", "value": 0, "color": [0, 0, 0]},
                 {"name": "cell", "value": 255, "color": [255, 0, 0]}],
     "ignore": [128, [255, 255, 255]]}

`value` is the grey value or palette index of a class; without it, classes have
0, 1, 2 and so on. `color` is its RGB in figures, and in masks that are
coloured. A class may also be given as its name only. Values and colours under
"ignore" are void, as is 255 if no class has it.

Without the file, the masks are scanned. If they have the values 0 and 255 only,
these are background and foreground; of four masks or more, up to a quarter may
have other values, and are then taken for faulty. Otherwise each value except
255, which is void, is a class, in their order; of ten masks or more, one that
alone has a value far above all others is taken for faulty. Coloured masks need
the file.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import class_table
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import threads

CLASSES_FILE = "classes.json"
SPLITS = ("train", "validation", "test")
LAYOUT = (
  "images/ with pictures and masks/ with masks of the same names, or these two"
  " in each of train/, validation/ and test/"
)

# What people call the folder of a split.
_SPLIT_FOLDERS = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing"),
}
_VALIDATION_SHARE = 0.2
# Formats that may have 16 bits a channel.
_DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".pnm", ".jp2")


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists a folder of pictures and masks, and finds out what the classes are.

  Args:
    folder: laid out as the module says.

  Raises:
    ValueError: the folder has another layout or no pair of picture and mask,
      `classes.json` has a fault, or the masks' values cannot be classes.
  """
  pairs, faults = [], []
  parts = _parts(folder)
  for split, (images, masks) in parts.items():
    matched = listing.match(
      images,
      masks,
      root=folder,
      split=split,
      prefix=f"{split}/" if len(parts) > 1 else "",
    )
    pairs += matched[0]
    faults += matched[1]
  if not pairs:
    known = listing.describe("folder", faults) if faults else ""
    raise ValueError(
      known
      or f"folder: {folder} holds no picture with a mask of the same name;"
      f" expected {LAYOUT}; found: {listing.contents(folder)}"
    )
  notes = []
  if "validation" not in parts:
    pairs = _split_by_hash(pairs)
    count = sum(pair.split == "validation" for pair in pairs)
    notes.append(
      f"no folder for validation: {count} of {len(pairs)} pictures are, chosen"
      " by a hash of their names"
    )
  table = _class_table(folder, pairs)
  classes = ", ".join(
    f"{value} {'void' if label == 255 else table.names[label]}"
    for value, label in list(table.values.items())[:12]
  )
  notes.append(f"classes, {table.origin}: {classes}")
  white = _white(pairs)
  if white is not None:
    notes.append(f"grey pictures of 16 bits: {white} becomes white")
  skipped = _other_files(parts.values())
  if skipped:
    names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    notes.append(
      f"{len(skipped)} files are no pictures by their names: {names}"
    )
  return listing.Listing(
    "folder",
    pairs,
    class_names=table.names,
    palette=table.palette,
    faults=faults,
    decode_picture=functools.partial(decoding.decode_picture, white=white),
    decode_mask=table.decode,
    settings=json.dumps(
      [
        sorted(table.values.items()),
        sorted(table.colors.items()),
        table.palette,
        white,
      ]
    ),
    notes=notes,
  )


def _parts(
  folder: pathlib.Path,
) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
  """The folders of pictures and masks of each split; without any, train."""
  found = {}
  for split, names in _SPLIT_FOLDERS.items():
    for name in names:
      for images, masks in (
        (folder / name / "images", folder / name / "masks"),
        (folder / "images" / name, folder / "masks" / name),
      ):
        if not images.is_dir() and not masks.is_dir():
          continue
        for path in (images, masks):
          if not path.is_dir():
            raise ValueError(
              f"folder: there is no folder {path}; expected {LAYOUT}"
            )
        if split in found:
          raise ValueError(
            f"folder: {found[split][0]} and {images} are both for {split}; put"
            " the pictures into one of them, and their masks likewise"
          )
        found[split] = images, masks
  if not found:
    listing.check_folders("folder", folder, ("images", "masks"), LAYOUT)
    return {"train": (folder / "images", folder / "masks")}
  if "train" not in found:
    raise ValueError(
      f"folder: {folder} has {', '.join(found)}, but nothing to train on;"
      f" expected {LAYOUT}"
    )
  loose = [
    path
    for parent in (folder / "images", folder / "masks")
    if parent.is_dir()
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


def _split_by_hash(pairs: Sequence[listing.Pair]) -> list[listing.Pair]:
  """Takes pairs of "train" for validation, the same ones in any company."""

  def draw(pair: listing.Pair) -> float:
    # Without the split's folder, which is there only if there are several.
    name = pair.name.removeprefix("train/")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

  training = [pair for pair in pairs if pair.split == "train"]
  if len(training) < 2:
    return list(pairs)
  by_draw = sorted(training, key=draw)
  # At least one for validation, and one for training.
  count = sum(draw(pair) < _VALIDATION_SHARE for pair in training)
  chosen = {
    pair.name for pair in by_draw[: min(max(count, 1), len(training) - 1)]
  }
  split = [
    pair._replace(split="validation") if pair.name in chosen else pair
    for pair in pairs
  ]
  return sorted(split, key=lambda pair: SPLITS.index(pair.split))


def _class_table(
  folder: pathlib.Path, pairs: Sequence[listing.Pair]
) -> class_table.ClassTable:
  path = folder / CLASSES_FILE
  if path.exists() or path.is_symlink():
    reason = listing.why_not_readable(path, folder)
    if reason:
      raise ValueError(f"folder: {path} {reason}")
    return class_table.read(path)
  masks = list(
    filter(
      None,
      threads.in_parallel(
        _mask_values, [pair.mask for pair in pairs], title="finding classes"
      ),
    )
  )
  if not masks:
    raise ValueError(
      f"folder: none of the {len(pairs)} masks can be read, such as"
      f" {pairs[0].mask}; see what is wrong with it, or run check_data"
    )
  try:
    return class_table.infer(masks)
  except ValueError as error:
    raise ValueError(f"folder: {folder / 'masks'}: {error}") from error


def _mask_values(path: pathlib.Path) -> class_table.MaskValues | None:
  try:
    return class_table.values_of(path.read_bytes())
  except (OSError, ValueError):
    return None  # The survey of all files will say what is wrong.


def _white(pairs: Sequence[listing.Pair]) -> int | None:
  """The value to show as white in grey pictures of 16 bits, if there are any.

  The largest that has as many bits as the largest that occurs: cameras fill 10,
  12 or 14 of the 16 bits, and would be nearly black on the whole scale.
  """
  paths = [
    pair.picture
    for pair in pairs
    if pair.picture.suffix.lower() in _DEEP_SUFFIXES
  ]
  values = [
    value
    for value in threads.in_parallel(
      _deepest_value, paths, title="looking for 16 bits"
    )
    if value is not None
  ]
  return max(255, 2 ** max(values).bit_length() - 1) if values else None


def _deepest_value(path: pathlib.Path) -> int | None:
  try:
    return decoding.deepest_value(path.read_bytes())
  except (OSError, ValueError):
    return None  # As in `_mask_values`.


def _other_files(parts) -> list[str]:
  return sorted(
    path.name
    for folders in parts
    for folder in folders
    for path in folder.rglob("*")
    if path.is_file()
    and path.suffix.lower() not in decoding.SUFFIXES
    and not path.name.startswith(".")
  )


class Folder(builder.FilesBuilder):
  """TFDS builder of `folder`; make it by `builder_of`."""

  DESCRIPTION = "Pictures and masks from a folder."
  LAYOUT = LAYOUT
  SPLITS = SPLITS
  find = staticmethod(find)

  def _check_same_source(self, source: pathlib.Path) -> None:
    """The fingerprint is a part of the path, so other files lie elsewhere."""


def builder_of(
  data_dir: str | os.PathLike[str] | None,
  *,
  prepared_dir: str | os.PathLike[str] | None,
) -> Folder:
  """The builder of a folder in its present state.

  Data are prepared under the folder's name and fingerprint: a folder whose
  files or classes have changed is prepared anew, and nothing is overwritten.

  Args:
    data_dir: the folder.
    prepared_dir: where prepared data sets lie; None is TFDS's own place.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no folder is given, or as for `find`.
  """
  if data_dir is None:
    raise ValueError(
      "folder: give the folder with your pictures (data_dir; to a script,"
      f" --data-dir): expected {LAYOUT}"
    )
  path = pathlib.Path(data_dir)
  if not path.is_dir():
    kind = "is a file, not a folder" if path.exists() else "does not exist"
    raise FileNotFoundError(
      f"folder: {path} {kind}; give the folder with your pictures: {LAYOUT}"
    )
  name = re.sub(r"\W+", "_", path.resolve().name)
  fingerprint = checking.fingerprint(find(path))
  state = tfds.core.BuilderConfig(name=f"{name}-{fingerprint[:12]}")

  class FolderInThisState(Folder, skip_registration=True):
    name = Folder.name
    # TFDS warns of configurations that its class does not list.
    BUILDER_CONFIGS = [state]

  # By name, so that other processes find it in their copy of the class.
  return FolderInThisState(data_dir=prepared_dir, config=state.name)

"""Which pictures in a user's folder are for which split."""

import pathlib
from collections.abc import Mapping, Sequence

from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing

# What people call the folder of a split.
_NAMES = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing"),
}
_VALIDATION_SHARE = 0.2

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
    listing.check_folders("folder", folder, ("images", "masks"), layout)
    return {"train": (folder / "images", folder / "masks")}
  if to_train and "train" not in found:
    raise ValueError(
      f"folder: {folder} has {', '.join(found)}, but nothing to train on;"
      f" expected {layout}"
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


def _candidates(
  folder: pathlib.Path,
) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """Splits with a folder of pictures, or of masks, and both these folders."""
  possible = [
    (split, *pair)
    for split, names in _NAMES.items()
    for name in names
    for pair in (
      (folder / name / "images", folder / name / "masks"),
      (folder / "images" / name, folder / "masks" / name),
    )
  ]
  return [one for one in possible if one[1].is_dir() or one[2].is_dir()]


def draw_validation(pairs: Sequence[listing.Pair]) -> list[listing.Pair]:
  """Takes a fifth of the pairs of "train" for validation, by their names."""

  def draw(pair: listing.Pair) -> float:
    # Without the split's folder, which exists only if there are several.
    return listing.share_of_name(pair.name.removeprefix("train/"))

  training = [pair for pair in pairs if pair.split == "train"]
  if len(training) < 2:
    return list(pairs)
  count = sum(draw(pair) < _VALIDATION_SHARE for pair in training)
  # At least one for validation, and one for training.
  count = min(max(count, 1), len(training) - 1)
  chosen = {pair.name for pair in sorted(training, key=draw)[:count]}
  split = [
    pair._replace(split="validation") if pair.name in chosen else pair
    for pair in pairs
  ]
  return sorted(split, key=lambda pair: list(_NAMES).index(pair.split))


def other_files(folders: Folders) -> list[str]:
  """Names of files that have no suffix of a picture, hidden ones left out."""
  return sorted(
    path.name
    for pair in folders.values()
    for folder in pair
    for path in folder.rglob("*")
    if path.is_file()
    and path.suffix.lower() not in decoding.SUFFIXES
    and not path.name.startswith(".")
  )

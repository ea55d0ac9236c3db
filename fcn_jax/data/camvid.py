"""The data set `camvid`: street scenes with 11 classes, from a folder.

The folder is laid out as in the SegNet protocol: pictures (PNG or JPEG) in
train/, val/ and test/, and for each a mask of the same name (PNG, 8-bit class
ids) in trainannot/, valannot/ and testannot/. Id 11 is void.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import types
from fcn_jax.data import files

# In the order of the ids in the SegNet protocol, where they have the names Sky,
# Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian and
# Bicyclist.
CLASS_NAMES = (
  "sky",
  "building",
  "pole",
  "road",
  "pavement",
  "tree",
  "sign",
  "fence",
  "car",
  "pedestrian",
  "bicyclist",
)

# RGB of each class in figures: the colours of CamVid's own label pictures.
PALETTE = (
  (128, 128, 128),
  (128, 0, 0),
  (192, 192, 128),
  (128, 64, 128),
  (0, 0, 192),
  (128, 128, 0),
  (192, 128, 128),
  (64, 64, 128),
  (64, 0, 128),
  (64, 64, 0),
  (0, 128, 192),
)

# The id of void in the masks on disk.
VOID_ID = 11

# Our name of each split, and the folder of its pictures. The masks' folder has
# "annot" behind that.
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
SPLITS = tuple(_FOLDERS)
_SUFFIXES = (".png", ".jpg", ".jpeg")
_LAYOUT = (
  "expected are the folders train, val, test with pictures (PNG or JPEG) and"
  " trainannot, valannot, testannot with masks of the same names (PNG)"
)
# A message of a hundred lines is not read.
_MAX_FAULTS = 5


@dataclasses.dataclass(frozen=True)
class _Pair:
  """The files of one example."""

  split: str
  picture: pathlib.Path
  mask: pathlib.Path


def check_folder(folder: str | os.PathLike[str]) -> tuple[list[_Pair], str]:
  """Reads every file of a CamVid folder and checks it.

  Args:
    folder: the folder that holds train, trainannot and the others.

  Returns:
    The pairs of picture and mask in the order of split and name, and the
    folder's fingerprint (see `fingerprint`).

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the folder is empty or of another layout, a picture has no mask
      or a mask no picture, or a file is unreadable, has a size other than its
      partner, or ids outside 0..11. Up to five such files are named.
  """
  pairs = _find_pairs(pathlib.Path(folder))
  # Threads: Pillow decodes outside of Python's lock.
  with concurrent.futures.ThreadPoolExecutor() as executor:
    faults = list(filter(None, executor.map(_find_fault, pairs)))
  _raise_faults(faults)
  return pairs, _fingerprint(pairs)


def fingerprint(folder: str | os.PathLike[str]) -> str:
  """Returns a hash of the names and the contents of a CamVid folder's files.

  The times of the files are left out: a copy has the same fingerprint.

  Args:
    folder: as for `check_folder`.

  Raises:
    FileNotFoundError, ValueError: the folder's layout is wrong, as for
      `check_folder`.
  """
  return _fingerprint(_find_pairs(pathlib.Path(folder)))


def _find_pairs(folder: pathlib.Path) -> list[_Pair]:
  if not folder.exists():
    raise FileNotFoundError(
      f"camvid: there is no folder {folder}; give the folder where CamVid lies:"
      f" {_LAYOUT}"
    )
  if not folder.is_dir():
    raise ValueError(f"camvid: {folder} is a file, not a folder; {_LAYOUT}")
  found = sorted(path.name for path in folder.iterdir())
  needed = [
    name + ending for name in _FOLDERS.values() for ending in ("", "annot")
  ]
  missing = [name for name in needed if not (folder / name).is_dir()]
  if missing:
    listing = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
    raise ValueError(
      f"camvid: {folder} has no folder {', '.join(missing)}; {_LAYOUT}; found:"
      f" {listing or 'nothing, the folder is empty'}"
    )
  pairs = []
  faults = []
  for split, name in _FOLDERS.items():
    pictures = _files_by_stem(folder / name, _SUFFIXES)
    masks = _files_by_stem(folder / (name + "annot"), (".png",))
    if not pictures:
      raise ValueError(
        f"camvid: {folder / name} holds no picture (PNG or JPEG); {_LAYOUT}"
      )
    for stem in sorted(pictures.keys() | masks.keys()):
      if len(pictures[stem]) == len(masks[stem]) == 1:
        pairs.append(_Pair(split, pictures[stem][0], masks[stem][0]))
      elif not masks[stem]:
        faults.append(
          f"{pictures[stem][0]} has no mask {name}annot/{stem}.png; add the"
          " mask or remove the picture"
        )
      elif not pictures[stem]:
        faults.append(
          f"{masks[stem][0]} has no picture {name}/{stem}.png or .jpg; add the"
          " picture or remove the mask"
        )
      else:
        same = [str(path) for path in pictures[stem] + masks[stem]]
        faults.append(
          f"{', '.join(same)} are more than one picture and one mask of a name;"
          " keep one of each"
        )
  _raise_faults(faults)
  return pairs


def _files_by_stem(
  folder: pathlib.Path, suffixes: tuple[str, ...]
) -> dict[str, list[pathlib.Path]]:
  by_stem = collections.defaultdict(list)
  for path in sorted(folder.iterdir()):
    # Files such as .DS_Store and ._x.png are an operating system's own.
    if path.suffix.lower() in suffixes and not path.name.startswith("."):
      by_stem[path.stem].append(path)
  return by_stem


def _find_fault(pair: _Pair) -> str | None:
  """Returns what is wrong with a pair's files, if anything is."""
  path = pair.picture
  try:
    picture = files.decode_picture(path.read_bytes())
    path = pair.mask
    mask = files.decode_mask(path.read_bytes())
  except (OSError, ValueError) as error:
    return f"{path} {error}"
  if picture.shape[:2] != mask.shape:
    return (
      f"{pair.picture} has {_size(picture)} pixels (width x height), but its"
      f" mask {pair.mask} {_size(mask)}; resize the mask (nearest neighbour)"
      " or replace the one that is wrong"
    )
  if mask.max() > VOID_ID:
    wrong = [int(value) for value in np.unique(mask) if value > VOID_ID]
    return (
      f"{pair.mask} has the class ids {wrong[:8]}, outside 0..{VOID_ID} (0 to"
      f" {VOID_ID - 1} are classes, {VOID_ID} is void); map them to those"
    )
  return None


def _size(array: np.ndarray) -> str:
  return f"{array.shape[1]}x{array.shape[0]}"


def _raise_faults(faults: list[str]) -> None:
  if faults:
    more = len(faults) - _MAX_FAULTS
    raise ValueError(
      f"camvid: {'; '.join(faults[:_MAX_FAULTS])}"
      + (f"; and {more} more files" if more > 0 else "")
    )


def _fingerprint(pairs: list[_Pair]) -> str:
  digest = hashlib.sha256()
  for pair in pairs:
    for path in (pair.picture, pair.mask):
      content = hashlib.sha256(path.read_bytes()).hexdigest()
      digest.update(f"{pair.split} {path.name} {content}\n".encode())
  return digest.hexdigest()


class Camvid(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of `camvid` from a folder, the `manual_dir`.

  Pictures keep the bytes of their files. Masks become 8-bit grey PNG files with
  void at `types.IGNORE_LABEL`. The metadata holds the fingerprint of the
  folder, so that data made from other files are not taken for these.
  """

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First version."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"CamVid as in the SegNet protocol: {_LAYOUT}."

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Street scenes from a car, 11 classes (SegNet protocol).",
      features=tfds.features.FeaturesDict(
        {
          # PNG or JPEG, whichever the folder has.
          "image": tfds.features.Image(),
          "label": tfds.features.Image(
            shape=(None, None, 1), encoding_format="png"
          ),
          "name": tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(
        {
          "class_names": list(CLASS_NAMES),
          "palette": [list(colour) for colour in PALETTE],
        }
      ),
      # The order of the names stays.
      disable_shuffling=True,
    )

  def download_and_prepare(
    self,
    *,
    download_config: tfds.download.DownloadConfig | None = None,
    **options,
  ) -> None:
    """Prepares the data set, as the base class, but checks the folder first.

    TFDS makes folders before it asks for the splits; a bad source is to leave
    nothing behind.

    Args:
      download_config: its `manual_dir` is CamVid's folder. It may be missing
        where the data set is prepared.
      **options: as in the base class.

    Raises:
      FileNotFoundError, ValueError: there is no folder, something is wrong
        with it (see `check_folder`), or the data set was prepared from other
        files.
    """
    config = download_config or tfds.download.DownloadConfig()
    overwrite = config.download_mode.overwrite_dataset
    # Not `is_prepared`, which logs a warning where the folder is not there.
    if self.data_path.exists() and not overwrite:
      if config.manual_dir is not None:
        self._check_same_source(config.manual_dir)
      return
    if config.manual_dir is None:
      raise ValueError(
        f"camvid is not prepared in {self.data_dir}; give the folder where"
        " CamVid lies (source_dir; to a script, --source-dir or the environment"
        f" variable CAMVID_DIR): {_LAYOUT}"
      )
    self._pairs, self._fingerprint = check_folder(config.manual_dir)
    super().download_and_prepare(download_config=config, **options)

  def _check_same_source(self, folder: str | os.PathLike[str]) -> None:
    if fingerprint(folder) != self.info.metadata["fingerprint"]:
      raise ValueError(
        f"camvid in {self.data_dir} was prepared from other files than those"
        f" now in {folder}; remove {self.data_dir} to prepare it again, or give"
        " another folder for prepared data"
      )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    del dl_manager
    self.info.metadata["fingerprint"] = self._fingerprint
    return {
      split: self._generate_examples(
        [pair for pair in self._pairs if pair.split == split]
      )
      for split in _FOLDERS
    }

  def _generate_examples(
    self, pairs: list[_Pair]
  ) -> Iterator[tuple[int, dict[str, bytes | str]]]:
    for index, pair in enumerate(pairs):
      mask = files.decode_mask(pair.mask.read_bytes())
      label = np.where(mask == VOID_ID, np.uint8(types.IGNORE_LABEL), mask)
      yield (
        index,
        {
          "image": pair.picture.read_bytes(),
          "label": files.encode_png(label),
          "name": pair.picture.stem,
        },
      )

"""Data sets `tfds:NAME`: TFDS data sets that are prepared on disk already.

TFDS has many data sets, and the code that prepares them mostly needs
TensorFlow. Reading what was prepared does not, if its files are ArrayRecord:

    builder = tfds.builder("oxford_iiit_pet", file_format="array_record")
    builder.download_and_prepare()

Then "tfds:oxford_iiit_pet" is the data set, "tfds:NAME/CONFIG" one of its
configurations and "tfds:NAME/CONFIG:VERSION" one of its versions; without it,
the newest. Its pictures are the feature of three channels, and its masks that
of one. What the masks' values mean is not on disk: for most data sets, all
masks for training are read, and the values in them are the classes, in their
order, except 255, which is void. The others are `_KNOWN`.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import types
from fcn_jax.data import examples
from fcn_jax.data.datasets import cityscapes
from fcn_jax.data.datasets import oxford_pets
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding
from fcn_jax.data.files import threads

PREFIX = "tfds:"

# A folder's name cannot begin with a point, so none leads upwards.
_FOLDER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_VERSION = r"\d+\.\d+\.\d+"
_NAME = re.compile(
  rf"(?P<name>\w+)(/(?P<config>{_FOLDER}))?(:(?P<version>{_VERSION}))?",
  re.ASCII,
)

# What the features are called in TFDS, where there are several of a kind.
_IMAGE_NAMES = ("image", "image_left")
_MASK_NAMES = (
  *("segmentation_mask", "segmentation_label", "segmentation", "mask"),
  *("annotations", "annotation", "label", "labels"),
)
_TEXT_NAMES = ("file_name", "filename", "image/filename", "name", "image_id")


class Meaning(NamedTuple):
  """What the values of masks mean.

  Attributes:
    class_names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures.
    decode: the bytes of a mask to [H, W] uint8, classes or void; ValueError for
      a faulty one.
  """

  class_names: tuple[str, ...]
  palette: Sequence[tuple[int, int, int]]
  decode: Callable[[bytes], np.ndarray]


# Data sets whose masks' values are documented, by their names in TFDS.
_KNOWN: Mapping[str, Meaning] = {
  "cityscapes": Meaning(
    cityscapes.CLASS_NAMES, cityscapes.PALETTE, cityscapes.decode_mask
  ),
  "oxford_iiit_pet": Meaning(
    oxford_pets.CLASS_NAMES, oxford_pets.PALETTE, oxford_pets.decode_mask
  ),
}


def load(
  name: str,
  *,
  split: str,
  prepared_dir: str | os.PathLike[str] | None = None,
) -> examples.Dataset:
  """Opens one split of a data set that TFDS has prepared.

  Args:
    name: "tfds:NAME", "tfds:NAME/CONFIG", and both with ":VERSION".
    split: one of the data set's own splits.
    prepared_dir: where prepared data sets lie. None is TFDS's own place, the
      environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.

  Raises:
    ValueError: there is no such data set or split, its files are not
      ArrayRecord, or it has no clear pair of a picture and a mask.
  """
  builder, parts = _find(name, prepared_dir)
  examples.check_split(name, split, tuple(builder.info.splits))
  features = _features(name, builder.info.features)
  fingerprint = _fingerprint(builder)
  meaning = _KNOWN.get(parts["name"]) or _scan(
    name, pathlib.Path(builder.data_path), features, fingerprint
  )
  return examples.Dataset(
    source=_Source(name, _Records(builder, split, features), meaning),
    class_names=meaning.class_names,
    palette=np.array(meaning.palette, np.uint8),
    fingerprint=fingerprint,
  )


def splits(
  name: str, *, prepared_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
  """The splits of a data set that TFDS has prepared; see `load`."""
  builder, _ = _find(name, prepared_dir)
  return tuple(builder.info.splits)


def _find(
  name: str, prepared_dir: str | os.PathLike[str] | None
) -> tuple[Any, Mapping[str, str | None]]:
  """The builder of a prepared data set, and the parts of its name."""
  parts = _NAME.fullmatch(name.removeprefix(PREFIX))
  if not parts:
    raise ValueError(
      f"{name!r} is no name of a prepared data set; write tfds:NAME,"
      " tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION (three numbers)"
    )
  if prepared_dir is None:
    prepared_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  root = pathlib.Path(prepared_dir).expanduser()
  folder = _choose(name, root, **parts.groupdict())
  return _open(name, folder), parts.groupdict()


class _Features(NamedTuple):
  """Names of the features that are read; `text` names the example."""

  image: str
  mask: str
  text: str | None


class _Records(Sequence[tuple[bytes, bytes, str]]):
  """The bytes of picture and mask, and the name, of each example.

  Reading one raises a `ValueError` where the prepared files are damaged.
  """

  def __init__(self, builder: Any, split: str, names: _Features):
    self._folder = str(builder.data_path)
    self._split = split
    self._names = names
    # Only what is needed is parsed: other features may need what is not
    # installed, and pictures are decoded by Pillow (see `files`).
    self._features = tfds.features.FeaturesDict(
      {name: builder.info.features[name] for name in names if name}
    )
    self._decoders = {
      name: tfds.decode.SkipDecoding() for name in names if name
    }
    self._source = builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> tuple[bytes, bytes, str]:
    # As in the sources of other data sets.
    if not 0 <= index < len(self):
      raise IndexError(f"no example {index}; there are {len(self)}")
    try:
      content = self._source[index]
    except RuntimeError as error:
      raise ValueError(
        f"{self._folder} cannot be read ({error}); prepare it again"
      ) from error
    record = self._features.deserialize_example_np(
      content, decoders=self._decoders
    )
    name = f"{self._split}/{index}"
    if self._names.text:
      name = record[self._names.text].decode("utf-8", errors="replace")
    return record[self._names.image], record[self._names.mask], name


class _Source(Sequence[examples.Example]):
  """Examples, checked as they come."""

  def __init__(self, name: str, records: _Records, meaning: Meaning):
    self._name = name
    self._records = records
    self._decode_mask = meaning.decode

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> examples.Example:
    picture, mask, name = self._records[index]
    try:
      image, label = decoding.decode_picture(picture), self._decode_mask(mask)
    except ValueError as error:
      raise ValueError(f"{self._name}: the example {name} {error}") from error
    if image.shape[:2] != label.shape:
      raise ValueError(
        f"{self._name}: the example {name} has a picture of {image.shape[:2]}"
        f" pixels (height, width) and a mask of {label.shape}"
      )
    return examples.Example(
      image=image, label=label.astype(np.int32), name=name
    )


def _choose(
  title: str,
  root: pathlib.Path,
  *,
  name: str,
  config: str | None,
  version: str | None,
) -> pathlib.Path:
  """The folder of a version; the newest of it if none is given."""

  def is_wanted(folder: pathlib.Path) -> bool:
    parts = folder.relative_to(root).parts
    return (
      parts[0] == name
      and (config is None or parts[1:-1] == (config,))
      and (version is None or parts[-1] == version)
    )

  prepared = _list(root)
  found = list(filter(is_wanted, prepared))
  if config is None:
    # One without configuration first; else the only one that there is.
    found = [path for path in found if path.parent == root / name] or found
  if len({path.parent for path in found}) > 1:
    names = sorted({f"{PREFIX}{name}/{path.parent.name}" for path in found})
    raise ValueError(
      f"{title} is prepared in several configurations in {root}; choose one:"
      f" {', '.join(names)}"
    )
  if not found:
    there = [
      f"{PREFIX}{folder.parent.relative_to(root).as_posix()}:{folder.name}"
      for folder in prepared
    ]
    raise ValueError(
      f"{title} is not prepared in {root}; prepared are:"
      f" {', '.join(there) or 'none'}. To prepare it, see the module"
      " fcn_jax.data.prepared; to look elsewhere, give another folder for"
      " prepared data"
    )
  return max(found, key=_numbers)


def _list(root: pathlib.Path) -> list[pathlib.Path]:
  """Folders of versions, NAME/VERSION and NAME/CONFIG/VERSION."""
  found = [
    path.parent
    for pattern in ("*/*/features.json", "*/*/*/features.json")
    for path in root.glob(pattern)
    if re.fullmatch(_VERSION, path.parent.name, re.ASCII)
    and not _is_ours(path.parent)
  ]
  return sorted(found, key=lambda folder: (folder.parent, _numbers(folder)))


def _is_ours(folder: pathlib.Path) -> bool:
  """Whether this package has prepared it; it has a name in `data` then."""
  try:
    info = json.loads((folder / "dataset_info.json").read_bytes())
    return str(info.get("moduleName")).startswith("fcn_jax.")
  except (OSError, ValueError, AttributeError):
    return False  # TFDS will say what is wrong, if it is asked for.


def _numbers(folder: pathlib.Path) -> list[int]:
  return [int(number) for number in folder.name.split(".")]


def _open(name: str, folder: pathlib.Path) -> Any:
  try:
    builder = tfds.builder_from_directory(folder)
  except Exception as error:
    reason = " ".join(str(error).split())
    raise ValueError(
      f"{name} in {folder} cannot be opened ({reason}); prepare it again"
    ) from error
  wanted = tfds.core.FileFormat.ARRAY_RECORD
  available = builder.info.available_file_formats()
  if wanted not in available:
    found = ", ".join(sorted(format.value for format in available))
    raise ValueError(
      f"{name} in {folder} has files of the format {found}, which TFDS reads"
      " with TensorFlow only. Prepare it again in another folder, where"
      " TensorFlow is installed: tfds.builder"
      f"({name.removeprefix(PREFIX)!r}, data_dir=..., "
      'file_format="array_record").download_and_prepare()'
    )
  return tfds.builder_from_directory(folder, file_format=wanted)


def _features(name: str, features: Mapping[str, Any]) -> _Features:
  """Chooses what is the picture, the mask and the name among the features."""
  by_channels: dict[int, list[str]] = {1: [], 3: []}
  texts = []
  for feature_name, feature in features.items():
    if isinstance(feature, tfds.features.Image):
      by_channels.setdefault(feature.shape[-1], []).append(feature_name)
    elif isinstance(feature, tfds.features.Text):
      texts.append(feature_name)
  image = _only(by_channels[3], _IMAGE_NAMES)
  mask = _only(by_channels[1], _MASK_NAMES)
  if image is None or mask is None:
    missing = "picture (3 channels)" if image is None else "mask (1 channel)"
    described = ", ".join(
      f"{key} ({type(feature).__name__}, {feature.shape})"
      for key, feature in sorted(features.items())
    )
    raise ValueError(
      f"{name} has no feature, or several, that can be the {missing}; its"
      f" features: {described}"
    )
  return _Features(image, mask, _only(texts, _TEXT_NAMES))


def _only(found: Sequence[str], known: Sequence[str]) -> str | None:
  """The one that was found, or the one of them that is known."""
  if len(found) > 1:
    found = [name for name in found if name in known]
  return found[0] if len(found) == 1 else None


def _fingerprint(builder: Any) -> str:
  digest = hashlib.sha256()
  for split in builder.info.splits.values():
    text = f"{split.name} {list(split.shard_lengths)} {split.num_bytes}\n"
    digest.update(text.encode())
  return f"{builder.info.full_name} {digest.hexdigest()[:16]}"


@functools.cache
def _scan(
  name: str, folder: pathlib.Path, features: _Features, fingerprint: str
) -> Meaning:
  """Finds the values in the masks of the first split, that of training mostly.

  Args:
    name: of the data set, for messages.
    folder: where it lies.
    features: which of them are read.
    fingerprint: part of the key of the cache.
  """
  del fingerprint
  builder = _open(name, folder)
  splits = list(builder.info.splits)
  split = "train" if "train" in splits else splits[0]
  records = _Records(builder, split, features)
  used = np.zeros(256, bool)
  for values in threads.in_parallel(
    functools.partial(_values, name, records),
    range(len(records)),
    title=f"reading the masks of {name}",
  ):
    used |= values
  used[types.IGNORE_LABEL] = False
  values = np.flatnonzero(used)
  if not len(values):
    raise ValueError(f"{name}: all masks of the split {split!r} are void")
  table = np.full(256, -1, np.int16)
  table[values] = np.arange(len(values))
  table[types.IGNORE_LABEL] = types.IGNORE_LABEL
  return Meaning(
    class_names=tuple(f"class {value}" for value in values),
    palette=palettes.voc_palette(num_classes=len(values)),
    decode=functools.partial(_decode, table=table, split=split),
  )


def _values(name: str, records: _Records, index: int) -> np.ndarray:
  _, mask, example = records[index]
  try:
    return np.bincount(decoding.decode_mask(mask).ravel(), minlength=256) > 0
  except ValueError as error:
    raise ValueError(f"{name}: the mask of {example} {error}") from error


def _decode(content: bytes, *, table: np.ndarray, split: str) -> np.ndarray:
  mask = decoding.decode_mask(content)
  label = table[mask]
  if label.min() < 0:
    wrong = [int(value) for value in np.unique(mask[label < 0])]
    raise ValueError(
      f"has the values {wrong[:8]}, which no mask of the split {split!r} has"
    )
  return label.astype(np.uint8)

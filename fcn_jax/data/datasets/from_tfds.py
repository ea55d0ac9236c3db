"""Data sets `tfds:NAME`: TFDS data sets that are already prepared on disk.

TFDS has many data sets, and the code that prepares them mostly needs
TensorFlow. Reading prepared data does not, if the files are ArrayRecord:

    builder = tfds.builder("oxford_iiit_pet", file_format="array_record")
    builder.download_and_prepare()

Then "tfds:oxford_iiit_pet" is the data set, "tfds:NAME/CONFIG" one of its
configurations and "tfds:NAME/CONFIG:VERSION" one of its versions; the default
is the newest. Its pictures are the feature of three channels, and its masks the
one of one channel.

The files do not say what the values of masks mean. `_KNOWN` has the meanings
for some data sets. For all others, this module reads all training masks: the
values that occur are the classes, in order, except 255, which is void.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import types
from fcn_jax.data import examples
from fcn_jax.data.datasets import cityscapes
from fcn_jax.data.datasets import oxford_pets
from fcn_jax.data.datasets import palettes
from fcn_jax.data.datasets import prepared_folders
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import threads

# Names of the features in TFDS, to choose among several of a kind.
_IMAGE_NAMES = ("image", "image_left")
_MASK_NAMES = (
  "segmentation_mask", "segmentation_label", "segmentation", "mask",
  "annotations", "annotation", "label", "labels",
)  # fmt: skip
_TEXT_NAMES = ("file_name", "filename", "image/filename", "name", "image_id")


class Meaning(NamedTuple):
  """What the values of masks mean.

  Attributes:
    class_names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures.
    decode: the bytes of a mask to [H, W] uint8, classes or void; ValueError for
      a faulty mask.
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
    prepared_dir: where prepared data sets are. None is TFDS's own place, the
      environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.

  Raises:
    ValueError: there is no such data set or split, its files are not
      ArrayRecord, or it is not clear which features are the picture and the
      mask.
  """
  folder = prepared_folders.find(name, prepared_dir)
  builder = prepared_folders.open_builder(name, folder)
  examples.check_split(name, split, tuple(builder.info.splits))
  features = _features(name, builder.info.features)
  fingerprint = _fingerprint(builder)
  meaning = _KNOWN.get(builder.name) or _scan(
    name, folder, features, fingerprint
  )
  return examples.Dataset(
    source=examples.Mapped(
      _Records(builder, split, features),
      functools.partial(_example, title=name, decode_mask=meaning.decode),
    ),
    class_names=meaning.class_names,
    palette=np.array(meaning.palette, np.uint8),
    fingerprint=fingerprint,
  )


def splits(
  name: str, *, prepared_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
  """The splits of a data set that TFDS has prepared; see `load`."""
  folder = prepared_folders.find(name, prepared_dir)
  builder = prepared_folders.open_builder(name, folder)
  return tuple(builder.info.splits)


class _Features(NamedTuple):
  """Names of the features that are read; `text` names the example."""

  image: str
  mask: str
  text: str | None


class _Records(Sequence[tuple[bytes, bytes, str]]):
  """The bytes of picture and mask, and the name, of each example.

  Reading one raises a `ValueError` if the prepared files are damaged.
  """

  def __init__(self, builder: Any, split: str, names: _Features):
    self._folder = str(builder.data_path)
    self._split = split
    self._names = names
    # Other features are not parsed, since they may need what is not installed;
    # Pillow decodes the pictures (see `decoding`).
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


def _example(
  record: tuple[bytes, bytes, str],
  *,
  title: str,
  decode_mask: Callable[[bytes], np.ndarray],
) -> examples.Example:
  """Decodes a record of the data set `title`, and checks it."""
  picture, mask, name = record
  try:
    image, label = decoding.decode_picture(picture), decode_mask(mask)
  except ValueError as error:
    raise ValueError(f"{title}: the example {name} {error}") from error
  if image.shape[:2] != label.shape:
    raise ValueError(
      f"{title}: the example {name} has a picture of {image.shape[:2]} pixels"
      f" (height, width) and a mask of {label.shape}"
    )
  return examples.Example(image=image, label=label.astype(np.int32), name=name)


def _features(name: str, features: Mapping[str, Any]) -> _Features:
  """Chooses the picture, the mask and the name among the features."""
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
  """The only one of the names, or the only one of them that is known."""
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
  """Finds the values in the masks of "train" or, without it, the first split.

  The fingerprint is a part of the key of the cache.
  """
  del fingerprint
  builder = prepared_folders.open_builder(name, folder)
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
  values = np.flatnonzero(used).tolist()
  if not values:
    raise ValueError(f"{name}: all masks of the split {split!r} are void")
  labels = [values.index(value) if used[value] else -1 for value in range(255)]
  return Meaning(
    class_names=tuple(f"class {value}" for value in values),
    palette=palettes.distinct_palette(num_classes=len(values)),
    decode=functools.partial(
      decoding.decode_labels,
      labels=[*labels, types.IGNORE_LABEL],
      reason=f", which no mask of the split {split!r} has",
    ),
  )


def _values(name: str, records: _Records, index: int) -> np.ndarray:
  _, mask, example = records[index]
  try:
    return checking.count_values(decoding.decode_mask(mask)) > 0
  except ValueError as error:
    raise ValueError(f"{name}: the mask of {example} {error}") from error

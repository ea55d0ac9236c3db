"""Where examples come from: data sets on disk, transforms, the pipeline.

    dataset = data.load("shapes", split="train")
    batches = data.pipeline.train_batches(dataset.source, batch_size=4, ...)

Everything here is NumPy on the host, and works without TensorFlow.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax.data import ade20k
from fcn_jax.data import archives
from fcn_jax.data import builder
from fcn_jax.data import camvid
from fcn_jax.data import cityscapes
from fcn_jax.data import files
from fcn_jax.data import folder
from fcn_jax.data import listing
from fcn_jax.data import oxford_pets
from fcn_jax.data import pipeline
from fcn_jax.data import prepared
from fcn_jax.data import shapes
from fcn_jax.data import transforms

__all__ = [
  "Dataset",
  "Example",
  "NAMES",
  "ade20k",
  "archives",
  "builder",
  "camvid",
  "cityscapes",
  "files",
  "find",
  "folder",
  "listing",
  "load",
  "oxford_pets",
  "pipeline",
  "prepared",
  "shapes",
  "transforms",
]

# Data sets with a layout of their own, made of files that the user has.
_BUILDERS: Mapping[str, type[builder.FilesBuilder]] = {
  "ade20k": ade20k.Ade20k,
  "camvid": camvid.Camvid,
  "cityscapes": cityscapes.Cityscapes,
  "oxford_pets": oxford_pets.OxfordPets,
}
_SHAPES = ("shapes", "shapes/tiny")

# All that `load` knows by name, beside "tfds:NAME".
NAMES = (*_SHAPES, "folder", *_BUILDERS)


class Example(NamedTuple):
  """A picture and its labels.

  Attributes:
    image: [H, W, 3] uint8, RGB.
    label: [H, W] int32, classes 0..C-1 or `types.IGNORE_LABEL`.
    name: of the example in its data set, for messages and figures.
    extras: further features that were asked for, by name: [H, W] or [H, W, 3]
      uint8, or [H, W] uint16.
  """

  image: np.ndarray
  label: np.ndarray
  name: str
  extras: Mapping[str, np.ndarray] = {}


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One split of a data set.

  Attributes:
    source: the examples, by number; reading from several threads is safe.
    class_names: of the classes 0..C-1.
    palette: [C, 3] uint8, RGB of each class in figures.
    fingerprint: of all splits: equal for equal names and contents of files.
  """

  source: Sequence[Example]
  class_names: tuple[str, ...]
  palette: np.ndarray
  fingerprint: str

  @property
  def num_classes(self) -> int:
    """Number of classes, background included and void not."""
    return len(self.class_names)


def find(name: str, data_dir: str | os.PathLike[str]) -> listing.Listing:
  """Lists the files of a data set that lies unpacked in a folder.

  Give the result to `listing.survey` to have all of them checked.

  Args:
    name: "folder", or a data set with a layout of its own, such as "camvid".
    data_dir: the folder.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the name is unknown, or the folder has another layout.
  """
  path = pathlib.Path(data_dir)
  if name != "folder" and name not in _BUILDERS:
    raise ValueError(
      f"{name} is not made of files; there are folder, {', '.join(_BUILDERS)}"
    )
  with archives.unpacked(name, path, {}, scratch=path):
    return folder.find(path) if name == "folder" else _BUILDERS[name].find(path)


def load(
  name: str,
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None = None,
  prepared_dir: str | os.PathLike[str] | None = None,
  skip_bad: bool = False,
  extras: Sequence[str] = (),
) -> Dataset:
  """Loads one split of a data set; prepares the data set where needed.

  Args:
    name: one of `NAMES`: "folder" is pictures and masks of your own, see the
      module `folder`; "shapes" is made by this package, and "shapes/tiny" is
      its first few examples, for tests. Or "tfds:NAME", "tfds:NAME/CONFIG" or
      "tfds:NAME/CONFIG:VERSION" of a data set that TFDS has prepared, see the
      module `prepared`.
    split: "train", "validation" or, where a data set has it, "test".
    data_dir: the folder with the original files, for data sets that have
      some. It may be left out once the data set is prepared (but not for
      "folder"); if it is given, it is an error that the prepared data set was
      made from other files.
    prepared_dir: where prepared data sets lie. None is TFDS's own place:
      the environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.
    skip_bad: whether to leave out examples whose files have a fault. Otherwise
      a fault is an error; it always is where `data_dir` is not for.
    extras: names of further features to read, of data sets that have some.

  Raises:
    FileNotFoundError: `data_dir` does not exist.
    ValueError: the name, the split or an extra is unknown, the data set needs
      files or cannot have any, or something is wrong with them. Nothing was
      written then.
  """
  if name.startswith(prepared.PREFIX):
    return _load_prepared(
      name,
      split=split,
      data_dir=data_dir,
      prepared_dir=prepared_dir,
      extras=extras,
    )
  if name not in NAMES:
    raise ValueError(
      f"no data set {name!r}; there are {', '.join(map(repr, NAMES))}, and"
      f" '{prepared.PREFIX}NAME' for those that TFDS has prepared"
    )
  if name in _SHAPES:
    if data_dir is not None:
      raise ValueError(
        f"{name} is made by the package and has no files; leave out the folder"
        f" {data_dir}"
      )
    config = name.partition("/")[2] or "full"
    dataset = shapes.Shapes(data_dir=prepared_dir, config=config)
  elif name == "folder":
    dataset = folder.builder_of(data_dir, prepared_dir=prepared_dir)
  else:
    dataset = _BUILDERS[name](data_dir=prepared_dir)
  if split not in dataset.SPLITS:
    names = ", ".join(map(repr, dataset.SPLITS))
    raise ValueError(f"no split {split!r} in {name}; it has {names}")
  unknown = set(extras) - dataset.EXTRAS.keys()
  if unknown:
    raise ValueError(
      f"{name} has no feature {', '.join(sorted(unknown))}; further features:"
      f" {', '.join(dataset.EXTRAS) or 'none'}"
    )
  config = tfds.download.DownloadConfig(
    manual_dir=data_dir, try_download_gcs=False
  )
  # TFDS prints that it downloads, which it does not; its bars are on stderr.
  with contextlib.redirect_stdout(io.StringIO()):
    dataset.download_and_prepare(
      download_config=config,
      file_format="array_record",
      **({} if name in _SHAPES else {"skip_bad": skip_bad}),
    )
  if split not in dataset.info.splits:
    names = ", ".join(map(repr, dataset.info.splits))
    raise ValueError(f"no split {split!r} in {name}; it has {names}")
  metadata = dataset.info.metadata
  features = ("image", "label", *extras)
  records = dataset.as_data_source(
    split, decoders={f: tfds.decode.SkipDecoding() for f in features}
  )
  return Dataset(
    source=_Source(records, tuple(extras)),
    class_names=tuple(metadata["class_names"]),
    palette=np.array(metadata["palette"], np.uint8),
    fingerprint=metadata.get("fingerprint", dataset.info.full_name),
  )


def _load_prepared(
  name: str,
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None,
  prepared_dir: str | os.PathLike[str] | None,
  extras: Sequence[str],
) -> Dataset:
  if data_dir is not None:
    raise ValueError(
      f"{name} is prepared already; leave out the folder {data_dir}"
    )
  if extras:
    raise ValueError(
      f"{name} has no feature {', '.join(extras)}; further features: none"
    )
  dataset = prepared.load(name, split=split, prepared_dir=prepared_dir)
  return Dataset(
    source=_PreparedSource(name, dataset),
    class_names=dataset.meaning.class_names,
    palette=np.array(dataset.meaning.palette, np.uint8),
    fingerprint=dataset.fingerprint,
  )


class _PreparedSource(Sequence[Example]):
  """Examples of a data set that others have prepared, checked as they come."""

  def __init__(self, name: str, dataset: prepared.Prepared):
    self._name = name
    self._records = dataset.records
    self._decode_mask = dataset.meaning.decode

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    picture, mask, name = self._records[index]
    try:
      image, label = files.decode_picture(picture), self._decode_mask(mask)
    except ValueError as error:
      raise ValueError(f"{self._name}: the example {name} {error}") from error
    if image.shape[:2] != label.shape:
      raise ValueError(
        f"{self._name}: the example {name} has a picture of {image.shape[:2]}"
        f" pixels (height, width) and a mask of {label.shape}"
      )
    return Example(image=image, label=label.astype(np.int32), name=name)


class _Source(Sequence[Example]):
  """A TFDS data source, decoded by Pillow (see `files`)."""

  def __init__(
    self, records: Sequence[dict[str, bytes]], extras: tuple[str, ...]
  ):
    self._records = records
    self._extras = extras

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    # TFDS and ArrayRecord would read something else at such an index.
    if not 0 <= index < len(self):
      raise IndexError(f"no example {index}; there are {len(self)}")
    record = self._records[index]
    return Example(
      image=files.decode_picture(record["image"]),
      label=files.decode_mask(record["label"]).astype(np.int32),
      name=record["name"].decode(),
      extras={name: files.decode_values(record[name]) for name in self._extras},
    )

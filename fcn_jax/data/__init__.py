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

from fcn_jax.data import archives
from fcn_jax.data import builder
from fcn_jax.data import camvid
from fcn_jax.data import files
from fcn_jax.data import folder
from fcn_jax.data import listing
from fcn_jax.data import nyudv2
from fcn_jax.data import pascal_context
from fcn_jax.data import pipeline
from fcn_jax.data import shapes
from fcn_jax.data import sift_flow
from fcn_jax.data import transforms
from fcn_jax.data import voc2012

__all__ = [
  "Dataset",
  "Example",
  "NAMES",
  "archives",
  "builder",
  "camvid",
  "files",
  "find",
  "folder",
  "listing",
  "load",
  "nyudv2",
  "pascal_context",
  "pipeline",
  "shapes",
  "sift_flow",
  "transforms",
  "voc2012",
]

# Data sets with a layout of their own, made of files that the user has.
_BUILDERS: Mapping[str, type[builder.FilesBuilder]] = {
  "camvid": camvid.Camvid,
  "nyudv2": nyudv2.Nyudv2,
  "pascal_context": pascal_context.PascalContext,
  "sift_flow": sift_flow.SiftFlow,
  "voc2012": voc2012.Voc2012,
}
_SHAPES = ("shapes", "shapes/tiny")

# All that `load` knows by name.
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
      its first few examples, for tests.
    split: "train", "validation" or, where a data set has it, "test"; or several
      of them, joined by "+".
    data_dir: the folder with the original files, for data sets that have
      some. It may be left out once the data set is prepared (but not for
      "folder"); if it is given, it is an error that the prepared data set was
      made from other files.
    prepared_dir: where prepared data sets lie. None is TFDS's own place:
      the environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.
    skip_bad: whether to leave out examples whose files have a fault. Otherwise
      a fault is an error.
    extras: names of further features to read, of data sets that have some.

  Raises:
    FileNotFoundError: `data_dir` does not exist.
    ValueError: the name, the split or an extra is unknown, the data set needs
      files or cannot have any, or something is wrong with them. Nothing was
      written then.
  """
  if name not in NAMES:
    raise ValueError(
      f"no data set {name!r}; there are {', '.join(map(repr, NAMES))}"
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
  _check_split(name, split, dataset.SPLITS)
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
  _check_split(name, split, tuple(dataset.info.splits))
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


def _check_split(name: str, split: str, known: Sequence[str]) -> None:
  parts = split.split("+")
  if len(set(parts)) < len(parts) or not set(parts) <= set(known):
    names = ", ".join(map(repr, known))
    raise ValueError(f"no split {split!r} in {name}; it has {names}")


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

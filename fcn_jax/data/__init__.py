"""Where examples come from: data sets on disk, transforms, the pipeline.

    dataset = data.load("shapes", split="train")
    batches = data.pipeline.train_batches(dataset.source, batch_size=4, ...)

Everything here is NumPy on the host, and works without TensorFlow.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax.data import camvid
from fcn_jax.data import files
from fcn_jax.data import pipeline
from fcn_jax.data import shapes
from fcn_jax.data import transforms

__all__ = [
  "Dataset",
  "Example",
  "camvid",
  "files",
  "load",
  "pipeline",
  "shapes",
  "transforms",
]

_NAMES = ("camvid", "shapes", "shapes/tiny")


class Example(NamedTuple):
  """A picture and its labels.

  Attributes:
    image: [H, W, 3] uint8, RGB.
    label: [H, W] int32, classes 0..C-1 or `types.IGNORE_LABEL`.
    name: of the example in its data set, for messages and figures.
  """

  image: np.ndarray
  label: np.ndarray
  name: str


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One split of a data set.

  Attributes:
    source: the examples, by number; reading from several threads is safe.
    class_names: of the classes 0..C-1.
    palette: [C, 3] uint8, RGB of each class in figures.
  """

  source: Sequence[Example]
  class_names: tuple[str, ...]
  palette: np.ndarray

  @property
  def num_classes(self) -> int:
    """Number of classes, background included and void not."""
    return len(self.class_names)


def load(
  name: str,
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None = None,
  source_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
  """Loads one split of a data set; prepares the data set where needed.

  Args:
    name: "shapes" (made by this package), "shapes/tiny" (its first few
      examples, for tests) or "camvid".
    split: "train", "validation" or, of camvid, "test".
    data_dir: where prepared data sets lie. None is TFDS's own place:
      the environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.
    source_dir: the folder with the original files, for data sets that have
      some. It may be left out once the data set is prepared; if it is given,
      it is an error that the prepared data set was made from other files.

  Raises:
    FileNotFoundError: `source_dir` does not exist.
    ValueError: the name or the split is unknown, the data set needs a source
      or cannot have one, or something is wrong with the files in it. Nothing
      was written then.
  """
  if name not in _NAMES:
    raise ValueError(
      f"no data set {name!r}; there are {', '.join(map(repr, _NAMES))}"
    )
  if name == "camvid":
    builder = camvid.Camvid(data_dir=data_dir)
    splits = camvid.SPLITS
  else:
    if source_dir is not None:
      raise ValueError(
        f"{name} is made by the package and has no source; leave out the folder"
        f" {source_dir}"
      )
    config = name.partition("/")[2] or "full"
    builder = shapes.Shapes(data_dir=data_dir, config=config)
    splits = shapes.SPLITS
  if split not in splits:
    raise ValueError(
      f"no split {split!r} in {name}; it has {', '.join(map(repr, splits))}"
    )
  # TFDS prints that it downloads, which it does not; its bars are on stderr.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(
        manual_dir=source_dir, try_download_gcs=False
      ),
      file_format="array_record",
    )
  metadata = builder.info.metadata
  return Dataset(
    source=_Source(builder.as_data_source(split, decoders=_SKIP_DECODING)),
    class_names=tuple(metadata["class_names"]),
    palette=np.array(metadata["palette"], np.uint8),
  )


_SKIP_DECODING = {
  "image": tfds.decode.SkipDecoding(),
  "label": tfds.decode.SkipDecoding(),
}


class _Source(Sequence[Example]):
  """A TFDS data source, decoded by Pillow (see `files`)."""

  def __init__(self, records: Sequence[dict[str, bytes]]):
    self._records = records

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
    )

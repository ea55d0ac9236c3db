"""Data sets by name: loads a split, or lists the files."""

import contextlib
import functools
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import holding
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.data import examples
from fcn_jax.data.datasets import ade20k
from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import camvid
from fcn_jax.data.datasets import cityscapes
from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import from_tfds
from fcn_jax.data.datasets import nyudv2
from fcn_jax.data.datasets import oxford_pets
from fcn_jax.data.datasets import pascal_context
from fcn_jax.data.datasets import prepared_folders
from fcn_jax.data.datasets import shapes
from fcn_jax.data.datasets import sift_flow
from fcn_jax.data.datasets import voc2012
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing

# Data sets of files that the user has, each with a layout of its own.
_BUILDERS: Mapping[str, type[builder.FilesBuilder]] = {
  "ade20k": ade20k.Ade20k,
  "camvid": camvid.Camvid,
  "cityscapes": cityscapes.Cityscapes,
  "nyudv2": nyudv2.Nyudv2,
  "oxford_pets": oxford_pets.OxfordPets,
  "pascal_context": pascal_context.PascalContext,
  "sift_flow": sift_flow.SiftFlow,
  "voc2012": voc2012.Voc2012,
}
_SHAPES = ("shapes", "shapes/tiny")

# Data sets of files that the user has, and all names for `load` except
# "tfds:NAME".
FROM_FILES = ("folder", *_BUILDERS)
NAMES = (*_SHAPES, *FROM_FILES)


@contextlib.contextmanager
def opened(
  name: str,
  data_dir: str | os.PathLike[str],
  *,
  group_by: str | None = None,
) -> Iterator[listing.Listing]:
  """Lists the files of a data set, with its archives unpacked meanwhile.

  `checking.survey` checks all files of the listing.

  Args:
    name: one of `FROM_FILES`.
    data_dir: the folder of the files, or of the archives.
    group_by: as for `load`.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the name is unknown, the folder has another layout or lacks
      something, or an archive is damaged.
  """
  if name not in FROM_FILES:
    raise ValueError(
      f"{name} is not made of files; there are {', '.join(FROM_FILES)}"
    )
  options = _options_of_folder(name, group_by=group_by)
  path = pathlib.Path(data_dir)
  source = folder.Folder if name == "folder" else _BUILDERS[name]
  with archives.unpacked(
    name,
    path,
    source.ARCHIVES,
    layout=source.LAYOUT,
    scratch=pathlib.Path(tempfile.gettempdir()),
  ) as unpacked:
    yield source.find(unpacked, **options)


def splits(
  name: str, *, prepared_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
  """Returns the splits of a data set that is prepared or generated here.

  Args:
    name: one of `NAMES`, or "tfds:NAME".
    prepared_dir: as for `load`.

  Raises:
    ValueError: the name is unknown, or the data set is not prepared.
  """
  if name.startswith(prepared_folders.PREFIX):
    return from_tfds.splits(name, prepared_dir=prepared_dir)
  make = functools.partial(_builder, name, None, prepared_dir)
  dataset = _prepared(make(), make, None, skip_bad=True)
  return tuple(dataset.info.splits)


def load(
  name: str,
  *,
  split: str,
  data_dir: str | os.PathLike[str] | None = None,
  prepared_dir: str | os.PathLike[str] | None = None,
  skip_bad: bool = False,
  extras: Sequence[str] = (),
  classes: examples.Classes | None = None,
  group_by: str | None = None,
  verify: bool = False,
) -> examples.Dataset:
  """Loads one split of a data set, and prepares the data set if needed.

  Args:
    name: one of `NAMES`: "folder" is pictures and masks of your own, see the
      module `folder`; "shapes" is made by this package, and "shapes/tiny" is
      its first few examples, for tests. Or "tfds:NAME", "tfds:NAME/CONFIG" or
      "tfds:NAME/CONFIG:VERSION" of a data set that TFDS has prepared, see the
      module `from_tfds`.
    split: "train", "validation" or, if the data set has it, "test"; or several
      of them, joined by "+".
    data_dir: the folder with the original files, for data sets in `FROM_FILES`.
      Except for "folder", it may be left out once the data set is prepared; if
      it is given, its files must be those that the data set was prepared from.
    prepared_dir: where prepared data sets are. None is TFDS's own place: the
      environment variable TFDS_DATA_DIR, else ~/tensorflow_datasets.
    skip_bad: whether to leave out examples with faulty files; otherwise they
      are an error.
    extras: names of further features to read, of data sets that have some.
    classes: those of a network that is to be scored on a "folder". It may then
      lack classes, and pictures to train on.
    group_by: regular expression for groups of pictures of a "folder" that
      belong into one split; its first parentheses match the part of the name
      that is the group.
    verify: whether to read all files of a "folder" that is prepared, even if
      their sizes and times have not changed.

  Raises:
    FileNotFoundError: `data_dir` does not exist.
    ValueError: the name, the split or an extra is unknown, the data set needs
      files or cannot have any, or the files have faults. In these cases nothing
      is written.
  """
  options = _options_of_folder(name, group_by=group_by)
  if name.startswith(prepared_folders.PREFIX):
    if data_dir is not None:
      raise ValueError(
        f"{name} is prepared already; leave out the folder {data_dir}"
      )
    if extras:
      raise ValueError(f"{name} has no further features {', '.join(extras)}")
    return from_tfds.load(name, split=split, prepared_dir=prepared_dir)
  if name == "folder":
    options |= {"classes": classes, "verify": verify}
  make = functools.partial(_builder, name, data_dir, prepared_dir, **options)
  dataset = make()
  examples.check_split(name, split, dataset.SPLITS)
  unknown = set(extras) - dataset.EXTRAS.keys()
  if unknown:
    raise ValueError(
      f"{name} has no feature {', '.join(sorted(unknown))}; further features:"
      f" {', '.join(dataset.EXTRAS) or 'none'}"
    )
  dataset = _prepared(dataset, make, data_dir, skip_bad=skip_bad)
  examples.check_split(name, split, tuple(dataset.info.splits))
  metadata = dataset.info.metadata
  # TFDS would decode all other features, some only with OpenCV.
  features = ("image", "label", *dataset.EXTRAS)
  records = dataset.as_data_source(
    split, decoders={f: tfds.decode.SkipDecoding() for f in features}
  )
  return examples.Dataset(
    source=examples.Mapped(
      records, functools.partial(_example, extras=tuple(extras))
    ),
    class_names=tuple(metadata["class_names"]),
    palette=np.array(metadata["palette"], np.uint8),
    fingerprint=metadata.get("fingerprint", dataset.info.full_name),
    # Data prepared by older versions have no such entries.
    masks=metadata.get("masks"),
    remarks=tuple(metadata.get("remarks", ())),
  )


def _options_of_folder(name: str, *, group_by: str | None) -> dict[str, Any]:
  """Options that only "folder" has, if they are given."""
  if group_by is None:
    return {}
  if name != "folder":
    raise ValueError(
      f"{name} has splits of its own; leave out the groups {group_by!r}"
      " (group_by; on the command line, --group-by)"
    )
  return {"group_by": group_by}


def _builder(
  name: str,
  data_dir: str | os.PathLike[str] | None,
  prepared_dir: str | os.PathLike[str] | None,
  **options: Any,
) -> builder.FilesBuilder | shapes.Shapes:
  """The builder of a data set by its name."""
  if name in _SHAPES:
    if data_dir is not None:
      raise ValueError(
        f"{name} is made by the package and has no files; leave out the folder"
        f" {data_dir}"
      )
    config = name.partition("/")[2] or "full"
    return shapes.Shapes(data_dir=prepared_dir, config=config)
  if name == "folder":
    return folder.builder_of(data_dir, prepared_dir=prepared_dir, **options)
  if name in _BUILDERS:
    return _BUILDERS[name](data_dir=prepared_dir)
  raise ValueError(
    f"no data set {name!r}; there are {', '.join(map(repr, NAMES))}, and"
    f" '{prepared_folders.PREFIX}NAME' for those that TFDS has prepared"
  )


def _prepared(
  dataset: builder.FilesBuilder | shapes.Shapes,
  make: Callable[[], builder.FilesBuilder | shapes.Shapes],
  data_dir: str | os.PathLike[str] | None,
  *,
  skip_bad: bool,
) -> builder.FilesBuilder | shapes.Shapes:
  """Prepares a data set, unless it is prepared.

  If another program is preparing it, this waits, and uses what that has made.

  Args:
    dataset: its builder.
    make: makes its builder anew.
    data_dir: the folder of its files.
    skip_bad: as for `load`.

  Returns:
    The builder of the data set as it is then on disk.
  """
  folder_of_versions = pathlib.Path(dataset.data_path).parent
  is_made_here = data_dir is not None or isinstance(dataset, shapes.Shapes)
  if not is_made_here or dataset.data_path.exists():
    _prepare(dataset, data_dir, skip_bad=skip_bad)
    return dataset
  with contextlib.ExitStack() as resources:
    with builder.explained(dataset):
      resources.enter_context(
        holding.held(
          folder_of_versions, waiting=functools.partial(_say_waiting, dataset)
        )
      )
    if dataset.data_path.exists():
      dataset = make()
    else:
      # What killed programs have left: nobody else writes here now.
      for left_over in folder_of_versions.glob("incomplete.*"):
        writing.remove(left_over)
    _prepare(dataset, data_dir, skip_bad=skip_bad)
  return dataset


def _say_waiting(dataset: builder.FilesBuilder | shapes.Shapes) -> None:
  print(
    f"{dataset.name}: another program is preparing this data set in"
    f" {reprs.path(dataset.data_path.parent)}; waiting until it has.",
    file=sys.stderr,
  )


def _prepare(
  dataset: builder.FilesBuilder | shapes.Shapes,
  data_dir: str | os.PathLike[str] | None,
  *,
  skip_bad: bool,
) -> None:
  config = tfds.download.DownloadConfig(
    manual_dir=data_dir, try_download_gcs=False
  )
  options = {} if isinstance(dataset, shapes.Shapes) else {"skip_bad": skip_bad}
  # TFDS prints that it downloads, though it does not; its bars are on stderr.
  with contextlib.redirect_stdout(io.StringIO()):
    dataset.download_and_prepare(
      download_config=config, file_format="array_record", **options
    )


def _example(
  record: Mapping[str, bytes], *, extras: Sequence[str]
) -> examples.Example:
  """Decodes a record by Pillow, see `decoding`."""
  return examples.Example(
    image=decoding.decode_picture(record["image"]),
    label=decoding.decode_mask(record["label"]).astype(np.int32),
    name=record["name"].decode(),
    extras={name: decoding.decode_values(record[name]) for name in extras},
  )

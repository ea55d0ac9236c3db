"""Reads every example of a data set and reports what it holds, and what is bad.

    fcn-jax check-data PICTURES           (or: folder --data-dir PICTURES)
    fcn-jax check-data camvid --data-dir CAMVID

PICTURES holds images/ and masks/ with files of the same names;
fcn_jax/data/datasets/folder.py has the details. The command opens every file.
It lists each bad file with the reason and the remedy: a file is truncated,
empty or not a picture, its picture or mask is missing or has another size, or a
mask has values that are not classes. For the good files it reports the sizes,
the classes (share of the labelled pixels, number of images, weight for
median-frequency balancing), and the mean and standard deviation of the pixels.

Writes data_report.json and data_report.png to a new folder. Exits with status 1
if a file is bad. If the masks do not say what their classes are, it writes
classes_template.json, to be completed as the classes.json of PICTURES. If a
data set has no files of its own (shapes, or one that is already prepared), the
command reads the prepared examples.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

import fcn_jax as fcn
from fcn_jax import reprs
from fcn_jax.cli import check_data_report as report
from fcn_jax.cli import errors
from fcn_jax.data.datasets import class_inference
from fcn_jax.data.files import near_duplicates
from fcn_jax.data.files import threads
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment
from fcn_jax.runs import folder as folder_lib


@dataclasses.dataclass(frozen=True)
class Options:
  """What to check."""

  dataset: Annotated[str, tyro.conf.Positional]
  """Data set: a folder of pictures, a name such as camvid or shapes, or
  tfds:NAME."""
  data_dir: pathlib.Path | None = None
  """Folder of the files or archives. Default: an environment variable such as
  CAMVID_DIR. Without either, the prepared data set is read."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept. Default: TFDS's own folder."""
  group_by: str | None = None
  """Regular expression for groups of pictures that belong into one split, such
  as '^([^_]+)_' (folder); as in training."""
  workdir: pathlib.Path | None = None
  """Folder for the report. Default: runs/check_data/<data set>, or the first
  free one of <data set>-2, <data set>-3 and so on."""
  num_pictures: int = 6
  """Examples to show."""
  num_threads: int = environment.num_cores()
  """Number of threads that read files."""
  overwrite: bool = False
  """Replace an existing report."""


def with_folder(options: Options) -> Options:
  """The options, where a folder of pictures may take the place of a data set.

  As in `fcn-jax train`; a folder that is called as a data set needs ./ before
  its name.
  """
  path = pathlib.Path(options.dataset)
  if options.dataset in fcn.data.NAMES or not path.is_dir():
    return options
  if options.data_dir is not None:
    raise ValueError(
      f"{path} is a folder of pictures, and --data-dir names another: give one "
      "of them."
    )
  return dataclasses.replace(options, dataset="folder", data_dir=path)


def workdir_of(options: Options) -> pathlib.Path:
  """The folder for the report."""
  if options.workdir is not None:
    return options.workdir
  parts = [options.dataset]
  if options.data_dir is not None:
    parts.append(options.data_dir.resolve().name)
  name = re.sub(r"[^\w.]+", "_", "-".join(parts))
  for number in itertools.count(1):
    suffix = f"-{number}" if number > 1 else ""
    workdir = pathlib.Path("runs", "check_data", name + suffix)
    # People check again after they have repaired files, and may want to
    # compare.
    if options.overwrite or not workdir.exists():
      return workdir


def check_files(options: Options, data_dir: pathlib.Path) -> report.Findings:
  """Reads the files of a data set."""
  with fcn.data.opened(
    options.dataset, data_dir, group_by=options.group_by
  ) as listing:
    survey = fcn.data.files.checking.survey(
      listing,
      num_threads=options.num_threads,
      look=near_duplicates.hashes if near_duplicates.available() else None,
    )
    shown = spread(survey.checked, options.num_pictures)
    return report.Findings(
      class_names=listing.class_names,
      palette=np.array(listing.palette, np.uint8),
      totals=survey.totals,
      faults=survey.faults,
      notes=[
        *listing.notes,
        *listing.mask_notes,
        *fcn.data.files.checking.describe_void(listing, survey.totals),
        *fcn.data.files.checking.describe_equal(survey),
        *near_duplicates.describe(survey),
      ],
      examples=[
        fcn.data.Example(
          listing.decode_picture(pair.picture.read_bytes()),
          listing.decode_mask(pair.mask.read_bytes()),
          pair.name,
        )
        for pair in (checked.pair for checked in shown)
      ],
    )


def check_prepared(options: Options) -> report.Findings:
  """Reads the examples of a prepared data set."""
  good, totals, faults, sources = [], {}, [], {}
  for split in fcn.data.splits(
    options.dataset, prepared_dir=options.prepared_dir
  ):
    dataset = fcn.data.load(
      options.dataset, split=split, prepared_dir=options.prepared_dir
    )
    source = sources[split] = dataset.source

    def read(index, split=split, source=source):
      try:
        example = source[index]
      except ValueError as error:
        place = pathlib.Path(options.dataset, split, str(index))
        return fcn.data.files.listing.Fault(place, str(error))
      return fcn.data.files.checking.count(
        example.image, example.label.astype(np.uint8)
      )

    for index, outcome in enumerate(
      threads.in_parallel(
        read,
        range(len(source)),
        num_threads=options.num_threads,
        title=f"checking {split}",
      )
    ):
      if isinstance(outcome, fcn.data.files.listing.Fault):
        faults.append(outcome)
        continue
      good.append((split, index))
      totals.setdefault(split, fcn.data.files.totals.Totals()).add(outcome)
  return report.Findings(
    class_names=dataset.class_names,
    palette=dataset.palette,
    totals=totals,
    faults=faults,
    notes=(),
    examples=[
      sources[split][index]
      for split, index in spread(good, options.num_pictures)
    ],
  )


def find(
  options: Options, data_dir: pathlib.Path | None, workdir: pathlib.Path
) -> report.Findings:
  """Reads the files of a data set, or what was prepared from them."""
  if data_dir is None:
    return check_prepared(options)
  try:
    return check_files(options, data_dir)
  except class_inference.UnknownClassesError as error:
    path = report.write_template(workdir, error.table)
    raise ValueError(
      f"{error.problem}. A table of what occurs is in {path}: name the "
      'classes there, move what is void to "ignore", and put the file '
      f"into {data_dir} as classes.json."
    ) from error


def spread(items: Sequence, count: int) -> list:
  """Some of the items, evenly spread."""
  count = min(count, len(items))
  return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options and the data, and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options, prog="fcn-jax check-data", description=__doc__, args=arguments
  )
  with contextlib.ExitStack() as resources:
    with errors.explained():
      options = with_folder(options)
      config_lib.at_least_one(options, "num_pictures", "num_threads")
      workdir = workdir_of(options)
      folder_lib.check_results(
        workdir,
        report.FILES,
        overwrite=options.overwrite,
        option="--workdir",
      )
      resources.enter_context(folder_lib.held(workdir))
      data_dir = batches.data_dir_of(options.dataset, options.data_dir)
      findings = find(options, data_dir, workdir)
    title = " ".join(map(str, filter(None, (options.dataset, data_dir))))
    with errors.explained(OSError):
      text = report.write(workdir, title, findings)
  print(reprs.printable(text))
  if findings.faults:
    sys.exit(1)

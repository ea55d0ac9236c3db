"""The data set `folder`: pictures and masks of your own.

    images/cat.jpg      a picture
    masks/cat.png       its labels: grey, palette or colours, without loss

or the same in each of train/, validation/ (or val/, valid/, dev/) and test/, or
images/train/ and so on, or the layout of VOC, see `folder_exports`.
docs/file_formats.md lists the formats. Masks may also
be in labels/, annotations/ or gt/, in upper or lower case, and have names that
are almost those of the pictures (see `near_names`). Without a folder for
validation, a fifth of the pictures is used for it, see `folder_groups`: those
with the lowest hashes of their names. If you add a picture, at most one other
moves to the other split. Equal pictures, and those of a group, stay together.

An optional `classes.json` says what the values of the masks mean:

    {"classes": [{"name": "background", "value": 0, "color": [0, 0, 0]},
                 {"name": "cell", "value": 255, "color": [255, 0, 0]}],
     "ignore": [128, [255, 255, 255]]}

`value` is the grey value or palette index of a class; the default is 0, 1, 2
and so on. `color` is its RGB in figures, and in coloured masks. You can also
give a class by its name only. Values and colours under "ignore" are void, and
so is 255 unless a class has it.

A "share" in it is not read. If classes have a "color" and not all of them a
"value", masks with a palette are read by colour; otherwise by number, unless
the table has all colours of the mask.

Without the file, the classes follow from the masks. If nearly all pixels have
the values 0 and 255, the classes are background and foreground. Otherwise each
value except 255, which is void, is a class; but 255 is a class, too, if the
values are evenly spaced levels from 0 to 255. Soft edges and single pixels of
other values are no classes, see `mask_levels`; masks with them are faulty. So
is, of ten or more masks, one with a value far above all others, which no other
mask has. If the palettes of masks contradict each other, their colours are the
classes, see `mask_colors`. Coloured masks need the file, and so do masks that
have several plausible meanings.
"""

import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax.data import examples
from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import class_inference
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import folder_exports
from fcn_jax.data.datasets import folder_groups
from fcn_jax.data.datasets import folder_pictures
from fcn_jax.data.datasets import folder_splits
from fcn_jax.data.datasets import folder_states
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.datasets import prepared_folders
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import matching

CLASSES_FILE = "classes.json"
SPLITS = ("train", "validation", "test")
LAYOUT = (
  "images/ with pictures and masks/ with masks of the same names, or these two"
  " in each of train/, validation/ and test/"
)


def find(
  folder: pathlib.Path,
  *,
  classes: examples.Classes | None = None,
  group_by: str | None = None,
) -> listing.Listing:
  """Lists a folder of pictures and masks, and finds out what the classes are.

  Args:
    folder: the folder that the user gave.
    classes: those of a network that is to be scored on it; the folder may lack
      some of them, and pictures to train on.
    group_by: regular expression for the groups of pictures that belong into one
      split, see `folder_groups.of_names`.

  Raises:
    ValueError: the folder has another layout or no pair of picture and mask,
      `classes.json` has a fault, the masks' values cannot be classes, or
      `group_by` does not fit.
  """
  try:
    parts, pairs, faults, notes = _pairs(folder, to_train=classes is None)
  except ValueError as error:
    export = folder_exports.recognize(folder)
    if export is None:
      raise
    raise ValueError(
      f"folder: {folder} holds annotations of {export}, and needs masks;"
      " docs/your_own_pictures.md, section From annotation tools, has the"
      f" command that makes them. ({error})"
    ) from error
  groups = folder_groups.of_names(pairs, group_by)
  _check_place_of_classes(folder)
  pictures = folder_pictures.look_at(pairs)
  splits = {pair.split for pair in pairs}
  if "train" in splits and "validation" not in splits:
    pairs, drawn = folder_groups.draw_validation(pairs, groups, pictures.hashes)
    notes += drawn
  elif group_by is not None:
    notes += folder_groups.in_several_splits(pairs, groups)
  notes += folder_splits.renamed(folder, parts) + folder_splits.unused(
    folder, parts
  )
  table, mask_notes, mask_hashes = _class_table(folder, pairs, classes)
  mask_notes = [_describe(table), *mask_notes]
  undecided = {fault.path for fault in pictures.faults}
  pairs = [pair for pair in pairs if pair.picture not in undecided]
  faults = [*faults, *pictures.faults]
  notes += pictures.notes
  skipped = folder_splits.other_files(parts)
  if skipped:
    notes.append(skipped)
  settings = [
    sorted(table.values.items()),
    sorted(table.colors.items()),
    table.palette,
    pictures.white,
  ]
  if table.scaled:
    settings.append(sorted(table.scaled))
  return listing.Listing(
    "folder",
    pairs,
    class_names=table.names,
    palette=table.palette,
    faults=faults,
    decode_picture=functools.partial(
      decoding.decode_picture, white=pictures.white
    ),
    decode_mask=table.decode,
    settings=json.dumps(settings),
    notes=notes,
    mask_notes=mask_notes,
    masks=table.as_json(),
    hashes={**pictures.hashes, **mask_hashes},
  )


def _pairs(
  folder: pathlib.Path, *, to_train: bool
) -> tuple[
  folder_splits.Folders,
  list[listing.Pair],
  list[listing.Fault],
  list[str],
]:
  """The folders of each split; pairs, faults and notes by the names of files.

  Raises:
    ValueError: the folder has another layout, or no pair.
  """
  if folder_exports.is_voc(folder):
    paths = folder / folder_exports.PICTURES, folder / folder_exports.MASKS
    parts = {"train": paths}
    pairs, faults, notes = folder_exports.assign(
      folder,
      *matching.match(parts, root=folder)[:2],
      folder_exports.splits(folder),
    )
  else:
    parts = folder_splits.find(folder, LAYOUT, to_train=to_train)
    pairs, faults, notes = matching.match(
      parts, root=folder, split_in_names=len(parts) > 1, nearly=True
    )
  if faults and not pairs:
    raise ValueError(listing.describe("folder", faults))
  if not pairs:
    raise ValueError(
      f"folder: {folder} holds no picture with a mask of the same name;"
      f" expected {LAYOUT}; found: {listing.contents(folder)}"
    )
  return parts, pairs, faults, notes


def _check_place_of_classes(folder: pathlib.Path) -> None:
  """Refuses a `classes.json` in a folder below, where it would not be read."""
  if (folder / CLASSES_FILE).exists():
    return
  for path in (*folder.glob("*/*.json"), *folder.glob("*/*/*.json")):
    if path.name.lower() == CLASSES_FILE:
      raise ValueError(
        f"folder: {path} is not read there; move it to {folder / CLASSES_FILE},"
        " or rename it if it is something else"
      )


def _describe(table: class_table.ClassTable) -> str:
  encodings = table.values if table.by_value else table.colors
  classes = ", ".join(
    f"{value} {'void' if label == 255 else table.names[label]}"
    for value, label in list(encodings.items())[:12]
  )
  return f"classes, {table.origin}: {classes}"


def _class_table(
  folder: pathlib.Path,
  pairs: Sequence[listing.Pair],
  classes: examples.Classes | None,
) -> tuple[class_table.ClassTable, Sequence[str], Mapping[pathlib.Path, str]]:
  """The table of the folder, remarks on it, and hashes of masks if read."""
  path = folder / CLASSES_FILE
  if path.exists() or path.is_symlink():
    reason = listing.why_not_readable(path, folder)
    if reason:
      raise ValueError(f"folder: {path} {reason}")
    table = class_table.read(path)
    return table.for_classes(*classes[:2]) if classes else table, [], {}
  table = (
    folder_exports.classes(folder) if folder_exports.is_voc(folder) else None
  )
  if table:
    return table.for_classes(*classes[:2]) if classes else table, [], {}
  if classes and classes.masks:
    origin = "of the run"
    return class_table.from_json(classes.masks, origin=origin), [], {}
  counts = mask_counts.count([pair.mask for pair in pairs])
  if not counts.num_masks:
    bad, reason = counts.unreadable
    number = f"none of the {len(pairs)} masks" if len(pairs) > 1 else "no mask"
    raise ValueError(f"folder: {number} can be read: {bad} {reason}")
  where = f"folder: {folder / 'masks'}: "
  try:
    return *class_inference.infer(counts), counts.hashes
  except class_inference.UnknownClassesError as error:
    raise class_inference.UnknownClassesError(
      where + error.problem, error.table
    ) from error
  except ValueError as error:
    raise ValueError(f"{where}{error}") from error


class Folder(builder.FilesBuilder):
  """TFDS builder of `folder`; make it by `builder_of`."""

  DESCRIPTION = "Pictures and masks from a folder."
  LAYOUT = LAYOUT
  SPLITS = SPLITS
  find = staticmethod(find)

  VERSION = tfds.core.Version("3.2.0")
  RELEASE_NOTES = {
    **builder.FilesBuilder.RELEASE_NOTES,
    "2.1.0": "Says what 255 means; palettes that contradict each other.",
    "3.2.0": "A fifth for validation, exactly; equal pictures in one split.",
  }

  # What `builder_of` knows about the folder.
  listed: listing.Listing | None = None
  source: folder_states.Source | None = None

  def download_and_prepare(self, **options: Any) -> None:
    """See the base class; records of which state of the folder it is made."""
    try:
      super().download_and_prepare(**options)
    finally:
      self.listed = None  # Of many files, it needs much memory.
    if self.source is not None:
      folder_states.record(self.data_path.parent, self.source)

  def _find(self, folder: pathlib.Path) -> listing.Listing:
    return self.listed or super()._find(folder)

  def _check_same_source(self, source: pathlib.Path) -> None:
    """The path has the fingerprint, so other files get another folder."""

  def _check_survey(self, survey: checking.Survey) -> None:
    if not self.builder_config.name.endswith(survey.fingerprint[:12]):
      raise ValueError(
        "folder: the files changed while they were read; try again when nothing"
        " writes to the folder"
      )


def builder_of(
  data_dir: str | os.PathLike[str] | None,
  *,
  prepared_dir: str | os.PathLike[str] | None,
  classes: examples.Classes | None = None,
  group_by: str | None = None,
  verify: bool = False,
) -> Folder:
  """Makes the builder of a folder in its present state.

  The path of the prepared data has the folder's name and fingerprint: if its
  files or classes change, it is prepared again, and nothing is overwritten. The
  files are not read if none has changed since it was prepared, by their sizes,
  times and inodes; see `folder_states`.

  Args:
    data_dir: the folder.
    prepared_dir: where prepared data sets are; see `by_name.load`.
    classes: see `find`.
    group_by: see `find`.
    verify: whether to read all files in any case.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no folder is given, or as for `find`.
  """
  if data_dir is None:
    raise ValueError(
      "folder: give the folder with your pictures (data_dir; on the command"
      f" line, --data-dir): expected {LAYOUT}"
    )
  path = pathlib.Path(data_dir)
  if not path.is_dir():
    kind = "is a file, not a folder" if path.exists() else "does not exist"
    raise FileNotFoundError(
      f"folder: {path} {kind}; give the folder with your pictures: {LAYOUT}"
    )
  name = re.sub(r"\W+", "_", path.resolve().name)
  find_now = functools.partial(find, classes=classes, group_by=group_by)
  # Before the files are read: what changes meanwhile is then another state.
  source = folder_states.of(path, options_of(classes, group_by))
  prepared = folder_states.prepared_of(
    prepared_folders.root_of(prepared_dir) / Folder.name,
    f"{name}-*",
    source,
  )
  listed = None
  if verify or not prepared or not (prepared / str(Folder.VERSION)).exists():
    listed = find_now(path)
    state_name = f"{name}-{checking.fingerprint(listed)[:12]}"
  else:
    state_name = prepared.name
  made = _in_state(state_name, find_now, prepared_dir)
  made.listed, made.source = listed, source
  return made


def _in_state(
  state_name: str,
  find_now: Callable[[pathlib.Path], listing.Listing],
  prepared_dir: str | os.PathLike[str] | None,
) -> "Folder":
  """The builder of a folder in one of its states."""
  state = tfds.core.BuilderConfig(name=state_name)

  class FolderInThisState(Folder, skip_registration=True):
    name = Folder.name
    # TFDS warns of configurations that its class does not list.
    BUILDER_CONFIGS = [state]
    find = staticmethod(find_now)

    def __reduce__(self):
      # Other processes have no such class. They would make another one, which
      # TFDS gives another name.
      return _in_state, (state_name, find_now, prepared_dir)

  # Set by name, as TFDS finds it in the class.
  return FolderInThisState(data_dir=prepared_dir, config=state.name)


def options_of(
  classes: examples.Classes | None, group_by: str | None
) -> dict[str, Any]:
  """What changes the prepared data beside the files, as JSON can hold it."""
  options = {
    "version": str(Folder.VERSION),
    "classes": classes and [classes.names, classes.palette, classes.masks],
    "group_by": group_by,
  }
  return json.loads(
    json.dumps(options, default=lambda array: np.asarray(array).tolist())
  )

"""Finds the folders of data sets that TFDS has prepared."""

import os
import pathlib
import re
from typing import Any

import tensorflow_datasets as tfds

from fcn_jax import reprs
from fcn_jax import strict_json

PREFIX = "tfds:"

# A folder's name cannot begin with a point, so none leads upwards.
_FOLDER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_VERSION = r"\d+\.\d+\.\d+"
_NAME = re.compile(
  rf"(?P<name>\w+)(/(?P<config>{_FOLDER}))?(:(?P<version>{_VERSION}))?",
  re.ASCII,
)

_FEATURES = "features.json"
# TFDS imports the modules of the classes that this file names. All that TFDS
# and the builders of this package write are of this package.
_FEATURE_CLASS = re.compile(r"tensorflow_datasets(\.[A-Za-z_]\w*)+", re.ASCII)
# The keys that name classes; in the older form, only beside "content".
_CLASS_KEYS = ("pythonClassName", "python_class_name")
_OLDER_CLASS_KEY = "type"
# Of JSON within JSON.
_JSON_KEY = "json"
_MAX_FEATURES_SIZE = 16 << 20


def find(
  name: str, prepared_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
  """Finds the folder of a prepared data set; arguments as `from_tfds.load`.

  Raises:
    ValueError: the name is wrong, no such data set is prepared, or it is in
      several configurations.
  """
  parts = _NAME.fullmatch(name.removeprefix(PREFIX))
  if not parts:
    raise ValueError(
      f"{name!r} is not the name of a prepared data set; write tfds:NAME,"
      " tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION (three numbers)"
    )
  return _choose(name, root_of(prepared_dir), **parts.groupdict())


def root_of(prepared_dir: str | os.PathLike[str] | None) -> pathlib.Path:
  """The folder of prepared data sets; None is TFDS's own place."""
  if prepared_dir is None:
    prepared_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  return pathlib.Path(prepared_dir).expanduser()


def _choose(
  title: str,
  root: pathlib.Path,
  *,
  name: str,
  config: str | None,
  version: str | None,
) -> pathlib.Path:
  """The folder of a version; of the newest one if none is given."""

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
    # The data set without configuration, or its only configuration.
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
      " fcn_jax.data.datasets.from_tfds; to look elsewhere, give another"
      " folder for prepared data"
    )
  return max(found, key=_numbers)


def _list(root: pathlib.Path) -> list[pathlib.Path]:
  """Folders of versions, NAME/VERSION and NAME/CONFIG/VERSION."""
  found = [
    path.parent
    for pattern in (f"*/*/{_FEATURES}", f"*/*/*/{_FEATURES}")
    for path in root.glob(pattern)
    if re.fullmatch(_VERSION, path.parent.name, re.ASCII)
    and not is_ours(path.parent)
  ]
  return sorted(found, key=lambda folder: (folder.parent, _numbers(folder)))


def is_ours(folder: pathlib.Path) -> bool:
  """Whether this package prepared it; such data sets have other names."""
  try:
    info = strict_json.read(folder / "dataset_info.json")
    return str(info.get("moduleName")).startswith("fcn_jax.")
  except (OSError, ValueError, AttributeError):
    return False  # TFDS will say what is wrong, if it is asked for.


def _numbers(folder: pathlib.Path) -> list[int]:
  return [int(number) for number in folder.name.split(".")]


def open_builder(name: str, folder: pathlib.Path) -> Any:
  """Opens what TFDS has prepared in a folder.

  Raises:
    ValueError: it cannot be opened, its files are not ArrayRecord, or opening
      it would import other modules than those of TFDS.
  """
  _check_feature_classes(name, folder / _FEATURES)
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


def _check_feature_classes(name: str, file: pathlib.Path) -> None:
  """Raises a `ValueError` if features have classes that are not of TFDS."""
  try:
    with file.open("rb") as opened:
      content = opened.read(_MAX_FEATURES_SIZE + 1)
    if len(content) > _MAX_FEATURES_SIZE:
      raise ValueError(f"it has more than {_MAX_FEATURES_SIZE} bytes")
    names = _feature_classes(strict_json.loads(content))
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{name} in {file.parent} cannot be opened ({_FEATURES}: {error});"
      " prepare it again"
    ) from error
  for one in names:
    if not isinstance(one, str) or not _FEATURE_CLASS.fullmatch(one):
      raise ValueError(
        f"{name} in {file.parent} cannot be opened: {_FEATURES} names the class"
        f" {reprs.path(str(one)[:80])}, which is not one of"
        " tensorflow_datasets, and opening it would run its program. If you"
        " trust it, prepare the data set again with features of TFDS"
      )


def _feature_classes(features: Any) -> list[Any]:
  """All that TFDS may take for the names of classes in features.json."""
  names, rest = [], [features]
  while rest:
    value = rest.pop()
    if isinstance(value, list):
      rest += value
    if not isinstance(value, dict):
      continue
    rest += value.values()
    names += [value[key] for key in _CLASS_KEYS if key in value]
    if _OLDER_CLASS_KEY in value and "content" in value:
      names.append(value[_OLDER_CLASS_KEY])
    if isinstance(value.get(_JSON_KEY), str):
      rest.append(strict_json.loads(value[_JSON_KEY]))
  # Features may have such names themselves; their values are mappings.
  return [name for name in names if not isinstance(name, dict)]

"""Label maps in MATLAB files."""

import numpy as np

from fcn_jax import types
from fcn_jax.data.files import mat5

_SIGNATURE = b"MATLAB"
_SIGNATURE_7_3 = b"MATLAB 7.3"


def is_matlab(content: bytes) -> bool:
  """Whether a file has the signature of MATLAB's, from version 5."""
  return content.startswith(_SIGNATURE)


def decode_ids(
  content: bytes,
  variable: str,
  *,
  field: str | None = None,
  lowest: int = 0,
  highest: int = 255,
) -> np.ndarray:
  """Decodes a map of integers.

  Args:
    content: the bytes of a file, of versions before 7.3.
    variable: name of the map, or of the structure that has it.
    field: name of the map in the structure, if it is in one.
    lowest: the lowest value that the map may have.
    highest: the highest.

  Returns:
    [H, W] int32.

  Raises:
    ValueError: the content is empty or broken, or has no such variable or
      field, or no such map in it.
  """
  if not content:
    raise ValueError("is empty (0 bytes); copy or download it again")
  if content.startswith(_SIGNATURE_7_3):
    raise ValueError(
      "is a MATLAB file of version 7.3 (HDF5), which is not read here; save it"
      " with the option -v7"
    )
  name = variable if field is None else f"{variable}.{field}"
  try:
    matrix = mat5.find(content, variable)
    found = {} if matrix is None or field is None else mat5.fields(matrix)
    inner = matrix if field is None else found.get(field)
    values = None if inner is None else mat5.numbers(inner)
  except ValueError as error:
    raise ValueError(
      f"cannot be read as a MATLAB file ({error}); copy or download it again"
    ) from error
  if matrix is None:
    raise ValueError(
      f"has no variable {variable}; it is damaged or another file: download it"
      " again"
    )
  if inner is None:
    raise ValueError(
      f"has no map {name} (fields of {variable}:"
      f" {', '.join(map(ascii, found)) or 'none'}); download it again"
    )
  # Text, cells, structures, sparse matrices and complex numbers.
  if values is None:
    raise ValueError(f"has something other than numbers in {name}")
  if values.ndim != 2 or not values.size:
    raise ValueError(
      f"has {name} of the shape {values.shape}, where height and width are"
      " expected"
    )
  # Some maps were saved with MATLAB's default type, which is float64.
  if values.dtype.kind == "f" and (values != np.round(values)).any():
    raise ValueError(f"has fractions or no numbers in {name}")
  if values.min() < lowest or values.max() > highest:
    raise ValueError(
      f"has values from {values.min():g} to {values.max():g} in {name}, where"
      f" {lowest} to {highest} are expected"
    )
  return values.astype(np.int32)


def decode_labels(
  content: bytes, variable: str, *, num_classes: int, lowest: int = 0
) -> np.ndarray:
  """Decodes a map with the classes 1 to `num_classes`; lower values are void.

  Args:
    content: as for `decode_ids`.
    variable: as for `decode_ids`.
    num_classes: the highest value that the map may have.
    lowest: the lowest.

  Returns:
    [H, W] uint8, classes from 0 or void.

  Raises:
    ValueError: as `decode_ids`.
  """
  ids = decode_ids(content, variable, lowest=lowest, highest=num_classes)
  return np.where(ids <= 0, types.IGNORE_LABEL, ids - 1).astype(np.uint8)

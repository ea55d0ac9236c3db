"""Finds pictures of different splits that look almost the same.

Each picture has a perceptual hash of 64 bits (pHash, by the package ImageHash):
the signs of the lowest frequencies of its brightness. Pictures that differ only
by compression, size or brightness have hashes that differ in few bits; those of
unrelated pictures differ in about 32.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fcn_jax import reprs
from fcn_jax.data.files import checking

# Unrelated pictures are this near once in 10^13 pairs, if bits are random.
_MAX_DISTANCE = 4
# Pairs that are compared at once, which bounds the memory.
_CHUNK = 1 << 22
# Mirrored and turned as augmentation does.
_ORIENTATIONS = (
  None,
  Image.Transpose.FLIP_LEFT_RIGHT,
  Image.Transpose.FLIP_TOP_BOTTOM,
  Image.Transpose.ROTATE_90,
  Image.Transpose.ROTATE_180,
  Image.Transpose.ROTATE_270,
)


def available() -> bool:
  """Whether ImageHash is installed."""
  return importlib.util.find_spec("imagehash") is not None


def hashes(picture: np.ndarray) -> tuple[int, ...]:
  """Hashes of a picture, [H, W, 3] uint8, and of its turned copies."""
  import imagehash  # Not always installed.

  # The size at which ImageHash computes the frequencies.
  small = (
    Image.fromarray(picture)
    .convert("L")
    .resize((32, 32), Image.Resampling.LANCZOS)
  )
  return tuple(
    int(
      str(imagehash.phash(small if turn is None else small.transpose(turn))), 16
    )
    for turn in _ORIENTATIONS
  )


def describe(survey: checking.Survey) -> list[str]:
  """Warns of pictures that look almost the same and are in several splits.

  Equal files are left out; `checking.describe_equal` names them.

  Args:
    survey: with `hashes` as `look`.
  """
  splits = list(survey.totals)
  if len(splits) < 2:
    return []
  if not available():
    return [
      "pictures of different splits that are almost equal are not looked for;"
      " that needs ImageHash: pip install ImageHash"
    ]
  remarks = []
  for number, first in enumerate(splits):
    for second in splits[number + 1 :]:
      remarks += _of_two(survey.checked, first, second)
  return remarks


def _of_two(
  checked: Sequence[checking.Checked], first: str, second: str
) -> list[str]:
  ours, theirs = (
    [one for one in checked if one.pair.split == split]
    for split in (first, second)
  )
  plain = np.array([one.looks[0] for one in ours], np.uint64)
  turned = np.array([one.looks for one in theirs], np.uint64)
  contents = [
    np.array([int(one.hashes[0][:16], 16) for one in part], np.uint64)
    for part in (ours, theirs)
  ]
  alike, example = np.zeros(len(theirs), bool), None
  step = max(1, _CHUNK // turned.size)
  for start in range(0, len(plain), step):
    part = slice(start, start + step)
    distance = np.bitwise_count(plain[part, None, None] ^ turned).min(axis=-1)
    near = distance <= _MAX_DISTANCE
    near &= contents[0][part, None] != contents[1]
    if example is None and near.any():
      i, j = np.argwhere(near)[0]
      example = ours[start + i].pair.picture, theirs[j].pair.picture
    alike |= near.any(axis=0)
  if example is None:
    return []
  return [
    f"{alike.sum()} pictures of {second} look like pictures of {first}, perhaps"
    f" mirrored or turned, such as {reprs.path(example[1])} and"
    f" {reprs.path(example[0])}: if they are copies or neighbours, keep them"
    " in one split (group_by; on the command line, --group-by)"
  ]

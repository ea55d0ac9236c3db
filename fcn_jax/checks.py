"""Checks of what users give: one sentence with the remedy.

Shapes and dtypes are checked everywhere, also while JAX traces. Values are
checked only on the host, and only where reading them is cheap. All functions
raise a `ValueError`.
"""

import numbers
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from fcn_jax import types

# Labels of other dtypes cannot hold void (int8), or are bit masks (uint32).
_LABEL_DTYPES = ("int32", "uint8", "uint32", "int64", "int16")

_RGB = 'np.asarray(image.convert("RGB"))'


def size(value: Any, name: str) -> tuple[int, int]:
  """Height and width; one number is a square.

  Args:
    value: one number, or two.
    name: of the option, for the message.
  """
  sides = (value, value) if isinstance(value, numbers.Integral) else value
  try:
    height, width = sides
    if min(height, width) < 1 or height != int(height) or width != int(width):
      raise ValueError
  except (TypeError, ValueError):
    raise ValueError(
      f"{name} is {value!r}; give a height and a width of at least 1, or one "
      "number for a square."
    ) from None
  return int(height), int(width)


def batch(batch: types.Batch, *, num_channels: int | None = None) -> None:
  """Checks the shapes and dtypes of a batch.

  Args:
    batch: to check.
    num_channels: of the images; None for any number.
  """
  if not isinstance(batch, types.Batch):
    raise ValueError(
      f"batch is a {_kind(batch)}, not a Batch: give fcn.types.Batch(images, "
      "labels)."
    )
  if np.ndim(batch.images) == 3 and np.ndim(batch.labels) == 4:
    raise ValueError(
      "images and labels are swapped: give fcn.types.Batch(images, labels), "
      "in this order."
    )
  images(batch.images, batch.valid_sizes, num_channels=num_channels)
  of_heads = batch.labels
  if not isinstance(of_heads, Mapping):
    of_heads = {"": of_heads}
  for head, of_head in of_heads.items():
    name = f"labels of {head}" if head else "labels"
    labels(of_head, name=name, of_pictures=True)
    same_size(of_head, batch.images, name, "images")


def images(
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  num_channels: int | None = None,
) -> None:
  """Checks the shapes and dtypes of images [N, H, W, C] and of their sizes."""
  if isinstance(images, types.Batch):
    raise ValueError("images are a Batch: give batch.images.")
  _check_array(images, "images", f"{_RGB}[None]")
  _check_pixels(images, "images", 4, num_channels)
  if valid_sizes is None:
    return
  if np.shape(valid_sizes) != (images.shape[0], 2):
    raise ValueError(
      f"valid_sizes have shape {np.shape(valid_sizes)}; they must be [N, 2], a "
      f"height and a width for each of the {images.shape[0]} images."
    )


def image(
  image: np.ndarray, *, name: str = "image", num_channels: int | None = None
) -> None:
  """Checks the shape and the dtype of one picture [H, W, C]."""
  _check_array(image, name, _RGB)
  _check_pixels(image, name, 3, num_channels)


def pixels(images: np.ndarray, *, name: str = "images") -> None:
  """Checks the values of images [..., C]: finite and, of RGB, in 0..255.

  Those of integers are right, and traced ones have none.
  """
  if not jnp.issubdtype(images.dtype, jnp.floating) or not images.size:
    return
  if isinstance(images, jax.core.Tracer):
    return
  if isinstance(images, jax.Array) and not images.is_fully_addressable:
    return
  # NaN if any value is.
  smallest, largest = float(images.min()), float(images.max())
  if not np.isfinite(smallest) or not np.isfinite(largest):
    raise ValueError(
      f"{_have(name)} values that are not finite (NaN or infinite): replace "
      "them, such as by np.nan_to_num(images)."
    )
  if images.shape[-1] != 3 or smallest == largest == 0:
    return
  if smallest >= 0 and largest <= 1:
    raise ValueError(
      f"{_have(name)} no value above 1, but images are 0..255: multiply by 255."
    )
  if largest <= 1:
    raise ValueError(
      f"{_have(name)} values from {smallest:.3g} to {largest:.3g}, but images "
      "are RGB in 0..255, and the network normalizes them itself: leave out "
      "your normalization."
    )


def labels(
  labels: np.ndarray, *, name: str = "labels", of_pictures: bool = False
) -> None:
  """Checks the shape and the dtype of labels.

  Args:
    labels: [H, W], or [N, H, W] of several pictures.
    name: for the message.
    of_pictures: whether they are those of several pictures.
  """
  shape = "[N, H, W]" if of_pictures else "[H, W]"
  _check_array(labels, name, "np.asarray(mask)")
  if labels.dtype == np.dtype(bool):
    raise ValueError(
      f"{_are(name)} bool; labels are class numbers: give "
      "labels.astype(np.int32), which makes False class 0 and True class 1."
    )
  if np.dtype(labels.dtype).name not in _LABEL_DTYPES:
    raise ValueError(
      f"{_are(name)} {labels.dtype}; labels are class numbers 0, 1, ... and "
      f"{types.IGNORE_LABEL} for void: give labels.astype(np.int32)."
    )
  rank = 3 if of_pictures else 2
  if labels.ndim == rank:
    return
  remedy = "give one class number for each pixel."
  if labels.ndim == rank + 1 and labels.shape[-1] == 1:
    remedy = "give labels[..., 0]."
  elif labels.ndim == rank + 1 and labels.shape[-1] in (3, 4):
    remedy = (
      "if these are colours, give the class number of each pixel; for masks "
      "in files, classes.json of the data set `folder` says what colours mean."
    )
  elif labels.ndim == rank + 1:
    remedy = (
      "if these are one-hot, give labels.argmax(axis=-1); for pixels with "
      "several classes, losses.bit_masks(labels); for those of several heads, "
      "a dict, of num_classes or labels by head."
    )
  elif of_pictures and labels.ndim == 2:
    remedy = "for a single picture, give labels[None]."
  raise ValueError(
    f"{_have(name)} shape {tuple(labels.shape)}, but labels are {shape}: "
    f"{remedy}"
  )


def same_size(
  labels: np.ndarray, images: np.ndarray, name: str, name_of_images: str
) -> None:
  """Checks that labels [..., H, W] have the size of images [..., H, W, C]."""
  if tuple(labels.shape) != tuple(images.shape[:-1]):
    raise ValueError(
      f"{_have(name)} shape {tuple(labels.shape)}, but {name_of_images} "
      f"{tuple(images.shape)}: each picture needs a label for each of its "
      f"pixels, {list(images.shape[:-1])}."
    )


def classes(labels: np.ndarray, *, num_classes: int, name: str) -> None:
  """Checks that the values of labels are classes or void.

  Args:
    labels: [...] integers, on the host.
    num_classes: C.
    name: what has these labels, for the message.
  """
  # As unsigned integers, numbers below 0 are large ones.
  unsigned = labels.view(f"u{labels.itemsize}")
  wrong = (unsigned >= num_classes) & (labels != types.IGNORE_LABEL)
  if wrong.any():
    raise ValueError(
      f"{name} has the label {labels[wrong][0]}, which is neither a"
      f" class (0..{num_classes - 1}) nor void ({types.IGNORE_LABEL}); correct"
      " its mask or the number of classes"
    )


def num_classes(number: int) -> None:
  """Checks that there are classes to tell apart."""
  if isinstance(number, bool) or not isinstance(number, numbers.Integral):
    raise ValueError(f"num_classes is {number!r}; give a whole number.")
  if number < 2:
    raise ValueError(
      f"num_classes is {number}, but the background is a class, too: give "
      "2 for one kind of object."
    )
  if number > types.IGNORE_LABEL:
    raise ValueError(
      f"num_classes is {number}; there can be {types.IGNORE_LABEL} "
      f"classes, as label {types.IGNORE_LABEL} is void."
    )


def key(key: jax.Array) -> None:
  """Checks that a random key is one."""
  dtype = getattr(key, "dtype", None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return
  if dtype == np.uint32 and np.shape(key)[-1:] == (2,):
    return  # As from `jax.random.PRNGKey`.
  found = key if isinstance(key, numbers.Number) else f"a {_kind(key)}"
  if dtype is not None:
    found = f"an array of {dtype}"
  raise ValueError(
    f"key is {found}, not a random key: give jax.random.key(0), or that of "
    "another number."
  )


def variables(variables: Any) -> None:
  """Checks that variables are those of a model, and not donated."""
  if hasattr(variables, "opt_state"):
    raise ValueError(
      "variables are a TrainState: give fcn.train.variables(state)."
    )
  if not isinstance(variables, Mapping) or "params" not in variables:
    raise ValueError(
      f'variables are a {_kind(variables)} without "params": give '
      '{"params": ...} with all that the model '
      "has, as from fcn.train.variables(state) or fcn.pretrained.load."
    )
  not_donated(variables, "variables")


def not_donated(arrays: Any, name: str) -> None:
  """Checks that no step has taken arrays."""
  for array in jax.tree.leaves(arrays):
    if (
      isinstance(array, jax.Array)
      and not isinstance(array, jax.core.Tracer)
      and array.is_deleted()
    ):
      raise ValueError(
        f"{name} were given to a train step before, which takes the memory of "
        "its state: use the state that the step returned, state, metrics = "
        "step(state, batch, key), or give the step a copy, jax.tree.map("
        "jax.numpy.copy, state)."
      )


def _kind(value: Any) -> str:
  return type(value).__name__


def _have(name: str) -> str:
  """The name of one thing, or of several, with its verb."""
  return f"{name} has" if _is_one(name) else f"{name} have"


def _are(name: str) -> str:
  """The same as `_have`, with another verb."""
  return f"{name} is" if _is_one(name) else f"{name} are"


def _is_one(name: str) -> bool:
  return name == "image" or name.startswith("the image") or name.endswith("]")


def _check_array(value: Any, name: str, remedy: str) -> None:
  """Raises unless a value has a shape and a dtype of NumPy."""
  if isinstance(value, PIL.Image.Image):
    raise ValueError(f"{_are(name)} a PIL image, not an array: give {remedy}.")
  if isinstance(value, (str, bytes, os.PathLike)):
    raise ValueError(
      f"{_are(name)} {_kind(value)}, not an array: open the file with "
      f"PIL.Image, and give {remedy}."
    )
  if isinstance(value, (list, tuple)):
    remedy = (
      f"np.asarray({name}, np.uint8)"
      if _is_one(name)
      else f"np.stack({name}) if all have one size, or use fcn.data.from_arrays"
    )
    raise ValueError(
      f"{_are(name)} a {_kind(value)}, not an array: give {remedy}."
    )
  try:
    np.dtype(value.dtype)
    tuple(value.shape)
  except (AttributeError, TypeError):
    raise ValueError(
      f"{_are(name)} a {_kind(value)}, not an array of NumPy or JAX: give "
      f"np.asarray({name})."
    ) from None


def _check_pixels(
  images: np.ndarray, name: str, rank: int, num_channels: int | None
) -> None:
  """Checks shape and dtype of an array [N, H, W, C], or [H, W, C]."""
  dtype = images.dtype
  if dtype != np.uint8 and not jnp.issubdtype(dtype, jnp.floating):
    remedy = "give images.astype(np.uint8)."
    if dtype == np.uint16:
      remedy = "scale them to 0..255, and give images.astype(np.uint8)."
    raise ValueError(
      f"{_are(name)} {dtype}, but images are uint8 or float in 0..255: {remedy}"
    )
  shape, channels = tuple(images.shape), num_channels or 3
  if images.ndim == rank and (
    num_channels is None or shape[-1] == num_channels
  ):
    return
  if images.ndim == 3 == rank - 1 and shape[-1] == channels:
    remedy = f"For a single image, give {name}[None]."
  elif images.ndim == 4 == rank + 1:
    remedy = f"Give one picture, such as {name}[0]."
  elif images.ndim == rank - 1:
    remedy = f"If they are grey, give np.stack([{name}] * {channels}, -1)."
  elif images.ndim == rank and shape[-3] == channels:
    axes = (0, 2, 3, 1) if rank == 4 else (1, 2, 0)
    remedy = f"Channels come last: give {name}.transpose{axes}."
  elif shape[-1:] == (1,):
    remedy = f"If they are grey, give np.repeat({name}, {channels}, -1)."
  elif shape[-1:] == (4,) and channels == 3:
    remedy = f"If they are RGBA, give {name}[..., :3]."
  else:
    remedy = "Give other images, or a network for these."
  expected = "[N, H, W, " if rank == 4 else "[H, W, "
  raise ValueError(
    f"{_have(name)} shape {shape}; images must be {expected}{channels}]. "
    f"{remedy}"
  )

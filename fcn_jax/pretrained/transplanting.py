"""Net surgery: starts one network with the parameters of another.

The papers start with classifiers, whose dense layers become convolutions (CVPR
2015, section 3.1), and train in stages (section 4.2): FCN-16s starts with the
parameters of FCN-32s, and FCN-8s with those of FCN-16s; layers that only the
new net has are initialised. In this package, a layer has the same name in all
networks, so names show which arrays belong together.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import chex
import jax
import numpy as np

from fcn_jax import types

Flattening = Literal["channels_first", "channels_last"]

# First layers of the backbones.
FIRST_LAYERS = ("conv1", "conv1_1")


class Report(NamedTuple):
  """What became of each array; names are paths such as `params/fc6/kernel`.

  Attributes:
    copied: from the source.
    converted: from the source, from a dense layer to a convolution.
    extended: from the source, with more classes after the old ones, or more
      channels.
    kept: the target's own, since the source has no array of that name.
    reshaped: the target's own, since the source's has another shape (a head for
      other classes).
    fixed: only in the source, and not needed: layers that are not trained and
      have the values that this package uses.
    unused: only in the source.
    binary: from the source, whose one score is that of the second class; the
      first one's is zero. The softmax of both is the sigmoid of the one.
  """

  copied: tuple[str, ...] = ()
  converted: tuple[str, ...] = ()
  extended: tuple[str, ...] = ()
  kept: tuple[str, ...] = ()
  reshaped: tuple[str, ...] = ()
  fixed: tuple[str, ...] = ()
  unused: tuple[str, ...] = ()
  binary: tuple[str, ...] = ()

  def new(self) -> tuple[str, ...]:
    """Arrays that are not from the source, or only in part."""
    return (*self.kept, *self.reshaped, *self.extended)

  def __str__(self) -> str:
    """One line for each group that is not empty."""
    titles = (
      "copied",
      "converted from a dense layer",
      "copied and extended",
      "new, not in the source",
      "new, of another shape in the source",
      "fixed in the source, as here",
      "left over in the source",
      "one score in the source, which is the second class's",
    )
    return "\n".join(
      f"{title} ({len(names)}): {', '.join(names)}"
      for title, names in zip(titles, self, strict=True)
      if names
    )


def dense_to_convolution(
  kernel: np.ndarray, size: tuple[int, int], *, flattening: Flattening
) -> np.ndarray:
  """Turns the kernel of a dense layer into that of a convolution.

  A dense layer on a flattened map is a convolution whose kernel is as large as
  the map (CVPR 2015, section 3.1): the same numbers, in another order.

  Args:
    kernel: [rows * columns * channels, outputs].
    size: rows and columns of the map.
    flattening: "channels_first" if the map was flattened channel by channel,
      as Caffe and PyTorch do; "channels_last" if pixel by pixel, as Flax does.

  Returns:
    [rows, columns, channels, outputs].

  Raises:
    ValueError: if the kernel does not fit a map of that size.
  """
  rows, columns = size
  num_channels, rest = divmod(kernel.shape[0], rows * columns)
  if kernel.ndim != 2 or rest:
    raise ValueError(
      f"a dense kernel of shape {list(kernel.shape)} is not one for maps of "
      f"{rows}x{columns}; give [{rows} * {columns} * channels, outputs]."
    )
  if flattening == "channels_last":
    return kernel.reshape(rows, columns, num_channels, -1)
  kernel = kernel.reshape(num_channels, rows, columns, -1)
  return kernel.transpose(1, 2, 0, 3)


def grow(
  name: str, array: chex.Array, shape: tuple[int, ...]
) -> chex.Array | None:
  """A score layer for more classes, or a first layer for more channels.

  New classes come after the old ones, with zeros as in new score layers.
  Kernels of new channels are the mean of the old ones, as for the depth in the
  papers' early fusion (NYUDv2).

  Args:
    name: of the array, such as `params/score_fr/bias`.
    array: bias [C] or kernel [rows, columns, inputs, outputs].
    shape: of the result.

  Returns:
    The array in the new shape; None for other layers and for other differences
    in shape.
  """
  *_, layer, kind = name.split("/")
  if layer.startswith("score_"):
    more = shape[-1] - array.shape[-1]
    if shape[:-1] != array.shape[:-1] or more < 0:
      return None
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)])
  if layer in FIRST_LAYERS and kind == "kernel":
    more = shape[2] - array.shape[2]
    others = [(*sides[:2], sides[3]) for sides in (shape, array.shape)]
    if others[0] != others[1] or more < 0:
      return None
    mean = np.mean(array, axis=2, keepdims=True)
    return np.concatenate([array, np.repeat(mean, more, axis=2)], axis=2)
  return None


def transplant(
  source: types.Tree, target: types.Tree
) -> tuple[types.Tree, Report]:
  """Puts the arrays of one network into another where name and shape agree.

  Score layers with more classes and first layers with more channels are
  extended, see `grow`.

  Args:
    source: variables of a trained network, `{"params": ..., ...}`.
    target: variables of the network to train, in its initial state.

  Returns:
    The target's variables with arrays of the source, in the target's dtypes,
    and what became of each array.

  Raises:
    ValueError: if nothing could be copied.
  """
  donors = dict(named(source))
  groups = {"copied": [], "extended": [], "kept": [], "reshaped": []}
  values = []
  for name, array in named(target):
    donor = donors.pop(name, None)
    if donor is None:
      group = "kept"
    elif donor.shape == array.shape:
      group, array = "copied", donor.astype(array.dtype)
    else:
      grown = grow(name, donor, array.shape)
      group = "reshaped" if grown is None else "extended"
      array = array if grown is None else grown.astype(array.dtype)
    groups[group].append(name)
    values.append(array)
  report = Report(
    **{group: tuple(names) for group, names in groups.items()},
    unused=tuple(sorted(donors)),
  )
  if not report.copied:
    raise ValueError(
      "the two networks have no array of the same name and shape: they have "
      f"different backbones. {report}"
    )
  structure = jax.tree.structure(target)
  return jax.tree.unflatten(structure, values), report


def named(variables: types.Variables) -> Iterator[tuple[str, chex.Array]]:
  """Pairs of a path, joined by slashes, and the array there."""
  for path, array in jax.tree_util.tree_leaves_with_path(variables):
    yield jax.tree_util.keystr(path, simple=True, separator="/"), array


def take_head(variables: types.Variables, head: str) -> types.Tree:
  """The network with one of its heads only.

  Args:
    variables: of an `models.FCN` with several heads.
    head: name of one of them.

  Returns:
    The variables of an FCN with that head alone, whose name is empty.
  """

  def with_one_head(layers):
    result = {}
    for name, layer in layers.items():
      if not name.startswith("score_"):
        result[name] = layer
      elif name.endswith(f"_{head}"):
        result[name.removesuffix(f"_{head}")] = layer
    return result

  return {
    collection: with_one_head(layers)
    for collection, layers in variables.items()
  }

"""Loads a file of weights, of any kind, into a network."""

import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import models
from fcn_jax import types
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import entries
from fcn_jax.pretrained import first_kernels
from fcn_jax.pretrained import papers_names
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained import transplanting
from fcn_jax.pretrained import weight_file

# On a CPU, JAX shares arrays with this alignment and does not copy them.
_ALIGNMENT = 64
# Largest number of names in a message.
_NUM_SHOWN = 4
# Numbers of float32 in a cache line.
_BLOCK = 16


def load(
  path: str | pathlib.Path | weight_file.WeightFile,
  model: models.Network,
  *,
  partial: bool = False,
  order: tuple[int, ...] | None = None,
  key: str | None = None,
) -> tuple[types.Variables, transplanting.Report]:
  """Loads weights that were published for Caffe, PyTorch or Keras.

  The kind of file is recognised: a .caffemodel (of either format), a state dict
  of PyTorch (.pth, .pt, .safetensors or an index of several), alone or in a
  checkpoint, or an .h5 of Keras Applications. Names are those of Caffe, of
  torchvision or of the papers, all of them after a prefix or not. No code in a
  file is run.

  Args:
    path: the file, or its arrays.
    model: the network, with the backbone, heads, `inputs` and `padding` of
      these weights, see `released`.
    partial: whether arrays that the file lacks, or has in another shape, may
      keep their initial values: to start an FCN from a classifier, or for other
      classes. Score layers with more classes get the old ones first; new
      channels of a first layer get the mean of the old ones.
    order: the image channels in the order of the file, such as (2, 1, 0) for
      BGR, where neither names nor kernels tell it or they are wrong. The
      weights are then taken to be for the network's `inputs`.
    key: of the state dict, if a checkpoint has several.

  Returns:
    The variables, `{"params": ..., ...}`, and what became of each array.

  Raises:
    ValueError: if the file is missing, damaged, or of no known kind; holds
      anything but arrays; is of another network, or for other pixels; or lacks
      arrays of this one and `partial` is false. The message says which.
  """
  template = _template(model)
  file = _file(path, model, key)
  found, report, about = _match(file, model, template, order)
  _check(about, model, report, partial)
  missing = (*report.kept, *report.reshaped)
  initial = _initial(model, missing) if missing else {}
  # Copied one by one, so that there is only one large copy at a time.
  arrays = [
    _device_array(found[name], shape) if name in found else initial[name]
    for name, shape in transplanting.named(template)
  ]
  return jax.tree.unflatten(jax.tree.structure(template), arrays), report


def compare(
  path: str | pathlib.Path | weight_file.WeightFile,
  model: models.Network,
  *,
  order: tuple[int, ...] | None = None,
  key: str | None = None,
) -> transplanting.Report:
  """What `load` would report for a file and a network, without copying.

  Args:
    path: the file, or its arrays.
    model: the network.
    order: see `load`.
    key: see `load`.

  Raises:
    ValueError: if the file is missing, damaged, of no known kind, or holds
      anything but arrays; or has no names for such a network.
  """
  file = _file(path, model, key)
  return _match(file, model, _template(model), order)[1]


def pixels(
  file: weight_file.WeightFile, model: models.Network
) -> first_kernels.Pixels | None:
  """Which pixels a file's weights expect, if that can be told from them.

  Args:
    file: of PyTorch or Keras.
    model: the network, with any input normalization.
  """
  return _pixels(file, _entries(file, model, model.inputs.order))


class _About(NamedTuple):
  """What messages say about a file.

  Attributes:
    origin: its path and kind.
    shapes: of arrays that differ from the network's: both shapes, in the order
      of axes of the file.
    expected: names that the network's arrays would have there.
  """

  origin: str
  shapes: dict[str, str]
  expected: tuple[str, ...]


def _file(path, model, key):
  if isinstance(path, weight_file.WeightFile):
    return path
  tables = weight_file.tables_of(model)
  return weight_file.read(pathlib.Path(path), tables, key=key)


@functools.lru_cache(maxsize=4)
def _template(model):
  return jax.eval_shape(functools.partial(_init, model))


def _init(model):
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  return model.init(jax.random.key(0), images, train=False)


def _entries(file, model, order):
  """The name of each array of the network in a file of PyTorch or Keras."""
  if file.naming == "papers" or (
    file.naming is None and not torchvision_names.has(model)
  ):
    table = papers_names.entries(model)
    return [
      entry._replace(order=entry.order and order or entry.order)
      for entry in table
    ]
  return torchvision_names.entries(model, file.arrays, order=order)


def _pixels(file, table):
  """What the first kernels of a file say, see `first_kernels`."""
  names = {ours: theirs for ours, theirs, _ in table}
  for ours, theirs, order in table:
    if order is not None and theirs in file.arrays:
      _, *layer, _ = ours.split("/")
      variance = names.get(f"batch_stats/{'/'.join(layer)}_norm/var")
      return first_kernels.pixels(
        file.arrays[theirs], file.arrays.get(variance)
      )
  return None


def _order(file, model):
  """The image channels in the order of a file; None as its names have it.

  Raises:
    ValueError: if the weights are for other pixels than the network's.
  """
  if isinstance(model, models.LateFusion):
    return None
  inputs = model.inputs
  if file.exported is not None:
    _check_exported(file, inputs)
    return tuple(range(inputs.num_channels))
  if file.is_keras and set(inputs.scale) != {1.0}:
    raise ValueError(
      f"{file.path} has Keras's weights, which are for BGR in 0..255: make the "
      "network with inputs=fcn.models.input_normalization.CAFFE."
    )
  found = _pixels(file, _entries(file, model, inputs.order))
  sees_bytes = set(inputs.scale[:3]) == {1.0}
  if found in ("caffe_bgr", "caffe_rgb", "0..255") and not sees_bytes:
    raise ValueError(
      f"{file.path}: the first kernels are for pixels in 0..255, less the mean,"
      f" and the network multiplies them by {inputs.scale[0]:.3g}. Make it "
      "with inputs=fcn.models.input_normalization.CAFFE, and give "
      "order=(2, 1, 0) if the channels are BGR there, (0, 1, 2) if RGB. (On "
      "the command line: --inputs caffe, for BGR.)"
    )
  if found == "caffe_bgr":
    return (2, 1, 0, *range(3, inputs.num_channels))
  if found == "caffe_rgb":
    return tuple(range(inputs.num_channels))
  if file.naming == "papers":
    if found == "normalised" and sees_bytes:
      raise ValueError(
        f"{file.path}: the first kernels are for normalised pixels, and the "
        "network sees 0..255. Make it with the inputs that the weights were "
        "trained with, such as fcn.models.input_normalization.TORCHVISION."
      )
    return inputs.order
  return None


def _check_exported(file, inputs):
  there = file.exported.get("inputs")
  here = {"mean": [*inputs.mean], "scale": [*inputs.scale]}
  if there != here:
    raise ValueError(
      f"{file.path} was exported from a network with the input normalization "
      f"{there}, and this one has {here}: make it with that one."
    )


def _match(file, model, template, order):
  """The arrays of a network that a file has, by name; report; `_About`."""
  origin, source = str(file.path), file.arrays
  if file.naming == "caffe":
    table = caffe_names.entries(model, source)
    fixed = caffe_names.check_fixed(file.path, source, model)
  else:
    if order is None:
      order = _order(file, model)
    table = _entries(file, model, order)
    fixed = tuple(filter(torchvision_names.is_ignored, source))
    if file.naming == "papers":
      fixed += papers_names.check_upsampling(file.path, source, model)
    elif network := torchvision_names.guess(source):
      origin += f" (torchvision's {network})"
  shapes = {name: array.shape for name, array in transplanting.named(template)}
  groups = {"copied": [], "converted": [], "extended": []}
  groups |= {"kept": [], "reshaped": [], "binary": []}
  found, used, differing = {}, {*fixed}, {}
  for entry in table:
    group, array = "kept", source.get(entry.theirs)
    if array is not None:
      used.add(entry.theirs)
      there, here = array.shape, _file_shape(shapes[entry.ours])
      group, array = _fit(entry, array, shapes[entry.ours])
      if group in ("extended", "reshaped"):
        differing[entry.ours] = f"{_times(there)} there, {_times(here)} here"
    groups[group].append(entry.ours)
    if array is not None:
      found[entry.ours] = array
  report = transplanting.Report(
    **{group: tuple(names) for group, names in groups.items()},
    fixed=fixed,
    unused=tuple(name for name in source if name not in used),
  )
  expected = tuple(entry.theirs for entry in table)
  return found, report, _About(origin, differing, expected)


def _file_shape(shape):
  """Shape of an array in files: outputs, inputs, rows, columns of a kernel."""
  return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape


def _times(shape):
  return "x".join(map(str, shape))


def _fit(entry, array, shape):
  """The group of an array in the report, and the array for the network.

  The array is None if it does not fit.
  """
  laid_out = entries.to_ours(array, shape, entry.order)
  if _is_binary(entry.ours, laid_out, shape):
    padding = [(0, 0)] * (laid_out.ndim - 1) + [(1, 0)]
    return "binary", np.pad(laid_out, padding)
  if laid_out is not None and laid_out.shape != shape:
    laid_out = transplanting.grow(entry.ours, laid_out, shape)
    group = "extended"
  elif len(shape) == 4 and array.shape[2:] != shape[:2]:
    group = "converted"
  else:
    group = "copied"
  return ("reshaped", None) if laid_out is None else (group, laid_out)


def _is_binary(name, array, shape):
  """Whether a file has one score for two classes, as a sigmoid needs."""
  *_, layer, _ = name.split("/")
  return (
    array is not None
    and layer.startswith("score_")
    and array.shape == (*shape[:-1], 1)
    and shape[-1] == 2
  )


def _device_array(array, like):
  """A contiguous copy on the device.

  It is made in memory that JAX can share on a CPU, so a large kernel is not
  copied twice, and JAX never holds the memory of the file.
  """
  num_bytes = array.size * like.dtype.itemsize
  memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  aligned = (
    memory[start : start + num_bytes].view(like.dtype).reshape(like.shape)
  )
  # Copies a cache line of outputs at a time: three times as fast for fc6.
  for first in range(0, array.shape[-1], _BLOCK):
    block = np.s_[..., first : first + _BLOCK]
    np.copyto(aligned[block], array[block], casting="same_kind")
  return jax.device_put(aligned, may_alias=True)


def _initial(model, names):
  """The arrays of these names, as a new network has them."""

  @jax.jit
  def draw():
    arrays = transplanting.named(_init(model))
    return {name: array for name, array in arrays if name in names}

  return draw()


def _check(about, model, report, partial):
  """Raises a `ValueError` if a file does not fit a network."""
  heads = ", ".join(str(number) for number in model.heads.values())
  network = (
    f"the network ({type(model).__name__}, {model.backbone}, stride "
    f"{model.stride}, {heads} classes)"
  )
  if not (report.copied or report.converted):
    raise ValueError(
      f"{about.origin} has no array of {network}, such as "
      f"{_some(about.expected, {})}, but has {_some(report.unused, {})}: it is "
      "from another network. Make that one, with its backbone."
    )
  faults = [
    f"{title}: {_some(names, about.shapes)}"
    for title, names in (
      ("not in the file", report.kept),
      ("of another shape or number of classes there", report.reshaped),
      ("with fewer classes or channels there", report.extended),
      ("left over in the file", report.unused),
    )
    if names
  ]
  if faults and not partial:
    raise ValueError(
      f"{about.origin} does not fit {network}. {'; '.join(faults)}. Make the "
      "network for these weights, or load them in part (partial=True): what "
      "the file lacks keeps its initial values."
    )


def _some(names, shapes):
  shown = ", ".join(
    f"{name} ({shapes[name]})" if name in shapes else name
    for name in names[:_NUM_SHOWN]
  )
  more = len(names) - _NUM_SHOWN
  return f"{shown} and {more} more" if more > 0 else shown

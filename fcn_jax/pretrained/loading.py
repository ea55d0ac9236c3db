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
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained import transplanting
from fcn_jax.pretrained.formats import caffemodel
from fcn_jax.pretrained.formats import state_dicts

# On a CPU, JAX shares arrays with this alignment and does not copy them.
_ALIGNMENT = 64
# Largest number of names in a message.
_NUM_SHOWN = 4
# Numbers of float32 in a cache line.
_BLOCK = 16


def load(
  path: str | pathlib.Path, model: models.Network, *, partial: bool = False
) -> tuple[types.Variables, transplanting.Report]:
  """Loads weights that were published for Caffe or torchvision.

  The kind of file is recognised: a .caffemodel (of either format), or a state
  dict of PyTorch (.pth, .pt or .safetensors). No code in a file is run.

  Args:
    path: the file.
    model: the network, with the backbone, heads, `inputs` and `padding` of
      these weights, see `released`.
    partial: whether arrays that the file lacks, or has in another shape, may
      keep their initial values: to start an FCN from a classifier, or for other
      classes. Score layers with more classes get the old ones first; new
      channels of a first layer get the mean of the old ones.

  Returns:
    The variables, `{"params": ..., ...}`, and what became of each array.

  Raises:
    ValueError: if the file is missing, damaged, or of no known kind; holds
      anything but arrays; is of another network; or lacks arrays of this one
      and `partial` is false. The message says which.
  """
  path = pathlib.Path(path)
  template = _template(model)
  found, report, about = _match(path, model, template)
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
  path: str | pathlib.Path, model: models.Network
) -> transplanting.Report:
  """What `load` would report for a file and a network, without copying.

  Args:
    path: the file.
    model: the network.

  Raises:
    ValueError: if the file is missing, damaged, of no known kind, or holds
      anything but arrays; or has no names for such a network.
  """
  return _match(pathlib.Path(path), model, _template(model))[1]


class _About(NamedTuple):
  """What messages say about a file.

  Attributes:
    origin: its path and kind.
    shapes: of arrays that differ from the network's: both shapes, in the order
      of axes of the file.
  """

  origin: str
  shapes: dict[str, str]


def _template(model):
  return jax.eval_shape(functools.partial(_init, model))


def _init(model):
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  return model.init(jax.random.key(0), images, train=False)


def _match(path, model, template):
  """The arrays of a network that a file has, by name; report; `_About`."""
  origin = str(path)
  if caffemodel.is_caffe(path):
    source = caffe_names.read(path)
    table = caffe_names.entries(model, source)
    fixed = caffe_names.check_fixed(path, source, model)
  else:
    source = state_dicts.read(path)
    table = torchvision_names.entries(model, source)
    fixed = tuple(filter(torchvision_names.is_ignored, source))
    network = torchvision_names.guess(source)
    if network:
      origin += f" (torchvision's {network})"
  shapes = {name: array.shape for name, array in transplanting.named(template)}
  groups = {"copied": [], "converted": [], "extended": []}
  groups |= {"kept": [], "reshaped": []}
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
  return found, report, _About(origin, differing)


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
  if laid_out is not None and laid_out.shape != shape:
    laid_out = transplanting.grow(entry.ours, laid_out, shape)
    group = "extended"
  elif len(shape) == 4 and array.shape[2:] != shape[:2]:
    group = "converted"
  else:
    group = "copied"
  return ("reshaped", None) if laid_out is None else (group, laid_out)


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
      f"{about.origin} has no array of {network}, but has "
      f"{_some(report.unused, {})}: it is from another network. Make that one, "
      "with its backbone."
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

"""Loading a file of weights, of whatever kind, into a network."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import models
from fcn_jax.weights import caffe
from fcn_jax.weights import caffe_files
from fcn_jax.weights import entries
from fcn_jax.weights import state_dicts
from fcn_jax.weights import surgery
from fcn_jax.weights import torchvision

# Arrays that begin here are shared with JAX on a CPU, not copied.
_ALIGNMENT = 64


def load(
  path: str | pathlib.Path, model: models.Network, *, partial: bool = False
) -> tuple[chex.ArrayTree, surgery.Report]:
  """Loads weights that were published for Caffe or torchvision.

  What the file is, is found out: a .caffemodel (of either format), or a state
  dict of PyTorch (.pth, .pt or .safetensors). No code in a file is run.

  Args:
    path: the file.
    model: the network, made for these weights: its backbone, heads, `inputs`
      and `padding` as the weights' own, see `released` and the README.
    partial: whether arrays of the network that the file has not, or in
      another shape, may keep their initial values: for a classifier as the
      beginning of an FCN, or for other classes. Score layers with more classes
      keep the old ones first; a first layer with more channels gets the mean
      of the old ones.

  Returns:
    The variables, `{"params": ..., ...}`, and what became of each array.

  Raises:
    ValueError: if the file is not there, damaged, or of no known kind; holds
      anything but arrays; is of another network; or does not have all arrays
      of this one while `partial` is false. The message says which.
  """
  path = pathlib.Path(path)
  if caffe_files.is_caffe(path):
    source = caffe.read(path)
    table = caffe.entries(model, source)
    fixed = caffe.check_fixed(path, source, model)
  else:
    source = state_dicts.read(path)
    table = torchvision.entries(model, source)
    fixed = tuple(filter(torchvision.is_ignored, source))
  template = jax.eval_shape(functools.partial(_init, model))
  found, report = _match(source, table, template, fixed)
  _check(_origin(path, source), model, report, partial)
  missing = (*report.kept, *report.reshaped)
  if missing:
    found |= _initial(model, missing)
  names = [name for name, _ in surgery.named(template)]
  return jax.tree.unflatten(
    jax.tree.structure(template), [found[name] for name in names]
  ), report


def _init(model):
  images = jnp.zeros((1, 64, 64, model.num_channels), jnp.uint8)
  return model.init(jax.random.key(0), images, train=False)


def _match(source, table, template, fixed):
  """The arrays of a network that a file has, by name, and the report."""
  shapes = dict(surgery.named(template))
  groups = {"copied": [], "converted": [], "extended": []}
  groups |= {"kept": [], "reshaped": []}
  found, used = {}, {*fixed}
  for entry in table:
    shape, array = shapes[entry.ours].shape, source.get(entry.theirs)
    if array is None:
      groups["kept"].append(entry.ours)
      continue
    used.add(entry.theirs)
    group, laid_out = "copied", entries.to_ours(array, shape, entry.order)
    if laid_out is not None and laid_out.shape != shape:
      group = "extended"
      laid_out = (
        surgery.extend(laid_out, shape)
        if surgery.can_grow(entry.ours)
        else None
      )
    elif len(shape) == 4 and array.shape[2:] != shape[:2]:
      group = "converted"
    if laid_out is None:
      groups["reshaped"].append(entry.ours)
      continue
    groups[group].append(entry.ours)
    found[entry.ours] = _device_array(laid_out, shapes[entry.ours].dtype)
  return found, surgery.Report(
    **{group: tuple(names) for group, names in groups.items()},
    fixed=tuple(fixed),
    unused=tuple(name for name in source if name not in used),
  )


def _device_array(array, dtype):
  """A contiguous copy on the device.

  Made in memory that JAX shares on a CPU, so that a large kernel is not in
  memory a third time, and never that of the file.
  """
  num_bytes = array.size * dtype.itemsize
  memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  aligned = memory[start : start + num_bytes].view(dtype).reshape(array.shape)
  np.copyto(aligned, array, casting="same_kind")
  return jnp.asarray(aligned)


def _initial(model, names):
  """The arrays of these names, as a new network has them."""

  @jax.jit
  def draw():
    arrays = surgery.named(_init(model))
    return {name: array for name, array in arrays if name in names}

  return draw()


def _origin(path, source):
  network = torchvision.guess(source)
  return f"{path} (torchvision's {network})" if network else f"{path}"


def _check(origin, model, report, partial):
  """Raises a `ValueError` if a file does not fit a network."""
  heads = ", ".join(str(number) for number in model.heads.values())
  network = (
    f"the network ({type(model).__name__}, {model.backbone}, stride "
    f"{model.stride}, {heads} classes)"
  )
  if not (report.copied or report.converted):
    raise ValueError(
      f"{origin} has no array of {network}, but {_some(report.unused)}: it is "
      "of another network. Make that one, with its backbone."
    )
  faults = [
    f"{title}: {_some(names)}"
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
      f"{origin} does not fit {network}. {'; '.join(faults)}. Make the network "
      "for these weights, or load them in part (partial=True): what the file "
      "has not keeps its initial values."
    )


def _some(names):
  shown = ", ".join(names[:6])
  return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"

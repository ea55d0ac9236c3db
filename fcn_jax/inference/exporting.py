"""Exports a network to one file that runs without this package.

The file is a zip:

    metadata.json                    classes, colours, input, versions
    classes.jax_export               images and sizes to classes
    probabilities.jax_export         images and sizes to probabilities
    variables/params/conv1_1/kernel.npy ...
    exported.py, __main__.py         how to run it, see `exported`
    exported_parts/decoding.py ...   copies of the modules of the package that
                                     find, read and draw pictures

The programs are StableHLO, lowered once for all devices and for any number of
images. Heights and widths are multiples of the coarsest stride: images of other
sizes are padded to such multiples. The programs take the size of each image and
do not see what lies outside of it, so the classes are those of the image alone.

Parameters are arguments of the programs. If they were constants, each program
would have its own copy of them, and another one for each compiled size. With
the 134 million parameters of VGG16 as constants (two CPU cores), the first
images of a size took 20 s instead of 3.5 s, and memory grew from 1 GB to 3.7 GB
after three sizes.
"""

import datetime
import json
import pathlib
import re
import types as python_types
import zipfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import geometry
from fcn_jax import models
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax import writing
from fcn_jax.data.files import decoding
from fcn_jax.data.files import other_kinds
from fcn_jax.data.files import pillow_formats
from fcn_jax.data.files import rasters
from fcn_jax.data.files import tiff
from fcn_jax.inference import buckets
from fcn_jax.inference import exported
from fcn_jax.inference import exported_command
from fcn_jax.inference import picture_files
from fcn_jax.inference import prediction
from fcn_jax.visualize import overlays
from fcn_jax.visualize import painting

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# What Python runs when it is given the zip file.
_MAIN = "import exported\n\nexported.main()\n"
# The modules that `exported` imports, directly or not. Of `types` they use one
# number only.
_PARTS = (
  reprs, decoding, other_kinds, pillow_formats, rasters, tiff, buckets,
  picture_files, painting, overlays, exported_command,
)  # fmt: skip
_TYPES = f"IGNORE_LABEL = {types.IGNORE_LABEL}\n"
_IMPORT = re.compile(r"^( *)from fcn_jax[.\w]* import (\w+)$", re.MULTILINE)
# How the metadata describes the input of the programs, and the network.
_INPUT = (
  "images [N, H, W, 3] uint8, RGB, and sizes [N, 2] int32, height and width of "
  "each; H and W are multiples of multiple_of"
)
_NETWORK_FIELDS = ("backbone", "stride", "padding", "normalization")


def export(
  path: str | pathlib.Path,
  model: models.Network,
  variables: types.Variables,
  *,
  class_names: Sequence[str],
  palette: np.ndarray,
  resize: float = 1.0,
  step: int | None = None,
) -> None:
  """Writes a network to one file; `exported.load` reads it.

  The file runs on a CPU, an NVIDIA or AMD GPU, or a TPU. JAX promises that it
  runs with versions released up to six months after, and three weeks before,
  the one installed now. So keep the checkpoint, and export again.

  Args:
    path: the file to write; it must not exist. It is written completely or not
      at all.
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    class_names: C names.
    palette: [C, 3] uint8, RGB of each class.
    resize: the factor by which pictures were resized for training.
    step: of training, for the metadata.

  Raises:
    ValueError: if the file exists, its folder does not, there is one class,
      names or palette are not those of C classes, the factor is not above 0, or
      the network does not take pictures of three channels and all sizes.
  """
  path = pathlib.Path(path)
  palette = np.asarray(palette)
  check(path, model, class_names, palette, resize)
  _check_sizes(model)
  names, arrays = _named(variables)
  programs = {
    name: _lower(function, model, variables)
    for name, function in zip(
      exported.PROGRAMS, (_classes, _probabilities), strict=True
    )
  }
  metadata = {
    "format": exported.FORMAT,
    "class_names": list(class_names),
    "palette": palette.tolist(),
    "void_label": types.IGNORE_LABEL,
    "input": _INPUT,
    "multiple_of": _multiple_of(model),
    "resize": float(resize),
    "step": step,
    "network": {name: getattr(model, name) for name in _NETWORK_FIELDS},
    "platforms": PLATFORMS,
    "jax": jax.__version__,
    "calling_convention": programs["classes"].calling_convention_version,
    "exported": datetime.date.today().isoformat(),
    "variables": names,
  }
  writing.remove_left_overs(path.parent)
  with writing.whole(path) as partial, partial.open("wb") as stream:
    _write_zip(stream, metadata, programs, zip(names, arrays, strict=True))


def _write_zip(stream, metadata, programs, variables):
  # Not compressed: parameters hardly shrink.
  with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
    file.writestr("metadata.json", json.dumps(metadata, indent=2))
    for name, program in programs.items():
      file.writestr(f"{name}.jax_export", bytes(program.serialize()))
    for name, array in variables:
      _write_array(file, name, array)
    file.writestr("exported.py", _standalone(exported))
    file.writestr("exported_parts/__init__.py", "")
    file.writestr("exported_parts/types.py", _TYPES)
    for module in _PARTS:
      name = module.__name__.rpartition(".")[2]
      file.writestr(f"exported_parts/{name}.py", _standalone(module))
    file.writestr("__main__.py", _MAIN)


def _standalone(module: python_types.ModuleType) -> str:
  """The source of a module that imports `exported_parts`, not this package."""
  source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
  return _IMPORT.sub(r"\1from exported_parts import \2", source)


def check_free(path: pathlib.Path) -> None:
  """Checks that a file can be written without replacing another.

  Raises:
    ValueError: if the file exists, or its folder does not.
  """
  if path.exists():
    raise ValueError(
      f"{path} exists already: give another name, or move it away."
    )
  if not path.parent.is_dir():
    raise ValueError(f"there is no folder {path.parent} for {path.name}.")


def check(
  path: pathlib.Path,
  model: models.Network,
  class_names: Sequence[str],
  palette: np.ndarray,
  resize: float,
) -> None:
  """Checks what is to be exported; arguments and errors as of `export`."""
  check_free(path)
  if model.num_channels != 3:
    raise ValueError(
      f"the network sees images of {model.num_channels} channels; only those "
      "for pictures in colour can be exported."
    )
  num_classes = models.heads.num_classes(model)
  if num_classes == 1:
    raise ValueError(
      "the network has one class; an exported network chooses the likeliest of "
      "several."
    )
  if len(class_names) != num_classes:
    raise ValueError(
      f"there are {len(class_names)} class_names for {num_classes} classes."
    )
  if palette.shape != (num_classes, 3) or palette.dtype != np.uint8:
    raise ValueError(
      f"palette is {list(palette.shape)} {palette.dtype}; it must be "
      f"[{num_classes}, 3] uint8, a colour for each class."
    )
  if not resize > 0:
    raise ValueError(f"resize is {resize}; it must be above 0.")


def _check_sizes(model):
  try:
    geometry.output_size(model.chain().score, 1)
  except ValueError as error:
    raise ValueError(
      "the network cannot be exported, as an exported one takes pictures of "
      f'all sizes: {error} Make it with padding="same".'
    ) from error


def _named(variables):
  """Names of the leaves, params/conv1_1/kernel and so on, and the leaves."""
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  names = [
    jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
  ]
  return names, [leaf for _, leaf in leaves]


def _multiple_of(model):
  return int(geometry.grid(model.chain().score).stride)


def _stored_dtype(dtype):
  # There are no .npy files of bfloat16; float32 holds all its numbers.
  return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def _write_array(file, name, array):
  array = np.asarray(array)
  array = array.astype(_stored_dtype(array.dtype))
  with file.open(f"variables/{name}.npy", "w", force_zip64=True) as stream:
    np.lib.format.write_array(stream, array, allow_pickle=False)


def _lower(function, model, variables):
  """A program of named arrays, images and sizes, for all devices and sizes."""
  names, leaves = _named(variables)
  treedef = jax.tree.structure(variables)

  def program(arrays, images, sizes):
    restored = [
      arrays[name].astype(leaf.dtype)
      for name, leaf in zip(names, leaves, strict=True)
    ]
    return function(model, jax.tree.unflatten(treedef, restored), images, sizes)

  multiple = _multiple_of(model)
  num_images, height, width = jax.export.symbolic_shape(
    f"n, {multiple}*h, {multiple}*w"
  )
  return jax.export.export(jax.jit(program), platforms=PLATFORMS)(
    {
      name: jax.ShapeDtypeStruct(leaf.shape, _stored_dtype(leaf.dtype))
      for name, leaf in zip(names, leaves, strict=True)
    },
    jax.ShapeDtypeStruct((num_images, height, width, 3), jnp.uint8),
    jax.ShapeDtypeStruct((num_images, 2), jnp.int32),
  )


def _classes(model, variables, images, sizes):
  classes = prediction.predict(model, variables, images, sizes)
  return classes.astype(jnp.uint8)


def _probabilities(model, variables, images, sizes):
  scores = models.heads.predicted_scores(model, variables, images, sizes)
  return prediction.probabilities_of(scores, "softmax")

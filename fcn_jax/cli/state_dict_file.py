"""The state dicts that `fcn-jax convert` writes, and their headers.

A header has the options of the network, its classes and its data set, so that
the file can be imported again exactly.
"""

import dataclasses
import json
import pathlib

import numpy as np

import fcn_jax as fcn
from fcn_jax.pretrained import papers_names
from fcn_jax.pretrained import weight_file
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib

# Options of a run's data that its network depends on, and its data set.
_DATA_OPTIONS = ("dataset", "modalities", "second_labels")


def write(out: pathlib.Path, network: fcn.runs.TrainedModel) -> str:
  """Writes the state dict of a trained network, and says what is in it.

  Raises:
    ValueError: if the file exists already.
  """
  names = fcn.pretrained.torchvision_names
  if names.has(network.model):
    arrays = names.state_dict(network.model, network.variables)
    origin, naming = "torchvision's names", "torchvision"
  else:
    arrays = papers_names.state_dict(network.variables)
    origin = "the names of this package, as torchvision has no such network"
    naming = "papers"
  fcn.pretrained.write_state_dict(
    out, arrays, metadata=_metadata(network, naming)
  )
  if isinstance(network.model, fcn.models.LateFusion):
    seen = "Its modalities see what fcn_jax.models.input_normalization says."
  else:
    seen = _seen(network.model.inputs)
  return (
    f"{out}: {len(arrays)} arrays of {type(network.model).__name__} on "
    f"{network.model.backbone}, {len(network.class_names)} classes, step "
    f"{network.step}; {origin}.\n{seen}"
  )


def config_of(
  file: weight_file.WeightFile, workdir: pathlib.Path
) -> config_lib.Train:
  """The options of the run that a file was exported from.

  Raises:
    ValueError: if they are damaged, or from another version.
  """
  try:
    options = dict(file.exported["options"])
    names = file.exported["classes"]["names"]
    known = config_lib.names(config_lib.Network) | {*_DATA_OPTIONS}
    if unknown := sorted(options.keys() - known):
      raise ValueError(f"unknown options {', '.join(unknown)}")
    palette = np.asarray(file.exported["classes"]["palette"], np.uint8)
    if (
      not all(type(name) is str for name in names)
      or not names
      or palette.shape != (len(names), 3)
    ):
      raise ValueError("classes without names or colours")
    config = config_lib.Train(run=config_lib.Run(workdir)).replace(**options)
    config.network.check()
    build.model(config, len(names))
  except (
    KeyError,
    TypeError,
    AttributeError,
    ValueError,
    OverflowError,
  ) as error:
    raise ValueError(
      f"{file.path}: what fcn-jax convert export wrote into its header is "
      f"damaged, or from another version ({str(error)[:200]}). Export it again."
    ) from error
  return config


def _metadata(network, naming) -> dict[str, str]:
  """What `import` needs beside the arrays, for the header of a file."""
  config, model = network.config, network.model
  options = {
    name: value
    for name, value in dataclasses.asdict(config.network).items()
    if name not in ("init", "init_hha")
  }
  options |= {name: getattr(config.data, name) for name in _DATA_OPTIONS}
  inputs = None
  if not isinstance(model, fcn.models.LateFusion):
    inputs = {"mean": model.inputs.mean, "scale": model.inputs.scale}
  content = {
    "naming": naming,
    "options": options,
    "inputs": inputs,
    # A run that can only begin training remains one.
    "is_classifier": network.is_classifier,
    "untrained": network.untrained,
    "classes": {
      "names": network.class_names,
      "palette": network.palette.tolist(),
    },
  }
  return {weight_file.EXPORTED: json.dumps(content)}


def _seen(inputs: fcn.models.input_normalization.InputNormalization) -> str:
  """What the user of a state dict must do to the pixels."""
  scaled = ", ".join(f"{255 * x:.4g}" for x in inputs.scale)
  shifted = ", ".join(f"{x / 255:.4g}" for x in inputs.mean)
  return f"It sees RGB in 0..1, minus ({shifted}), times ({scaled})."

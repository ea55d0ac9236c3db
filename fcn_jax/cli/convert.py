"""Converts published weights to a run, and trained ones for PyTorch.

    fcn-jax convert import fcn8s-heavy-pascal.caffemodel --workdir runs/fcn8s
    fcn-jax convert import vgg16.pth --workdir runs/vgg16_imagenet
    fcn-jax convert export --workdir runs/mine --out mine.safetensors

`import` reads a .caffemodel, or a state dict of torchvision (.pth, .pt or
.safetensors), and makes a work folder for fcn-jax predict, evaluate and export,
and for --init of fcn-jax train. It recognises the network by itself. From a
classifier it keeps everything except the classes; the result is for --init
only. It never runs code in a file.

`export` writes the network of a run to a state dict for PyTorch (.safetensors):
with torchvision's names if torchvision has such a network, otherwise with the
papers' names of layers.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

import fcn_jax as fcn
from fcn_jax.cli import errors
from fcn_jax.cli import published
from fcn_jax.runs import folder as folder_lib
from fcn_jax.runs import trained_model

REPORT_FILE = "weights.txt"


@dataclasses.dataclass(frozen=True)
class Import:
  """Makes a work folder from a file of published weights."""

  file: Annotated[pathlib.Path, tyro.conf.Positional]
  """The .caffemodel, .pth, .pt or .safetensors file."""
  workdir: pathlib.Path
  """Work folder to make; it must not exist, or be empty."""
  network: str | None = None
  """Name of the network, as torchvision or the papers' authors call it;
  caffe-vgg16 and so on for Caffe's classifiers. Default: recognised from the
  file."""
  num_classes: int | None = None
  """Number of classes of an FCN that was trained for other classes than the
  published one. Default: recognised from the file."""
  head: str | None = None
  """Which head to keep of a network with several: semantic or geometric (SIFT
  Flow)."""
  partial: bool = False
  """Convert even if arrays are missing in the file or left over."""


@dataclasses.dataclass(frozen=True)
class Export:
  """Writes a trained network to a state dict for PyTorch."""

  workdir: pathlib.Path
  """Work folder of the run that trained the network."""
  out: pathlib.Path
  """The file to write, such as network.safetensors; it must not exist."""
  checkpoint: str = "best"
  """best (by validation mean IU; the newest if none was validated), latest, or
  the number of a step."""


def import_weights(options: Import) -> str:
  """Makes the work folder, and says what became of each array.

  Raises:
    ValueError: if the file is damaged or is of another network, or the work
      folder is in use.
  """
  _check_workdir(options.workdir)
  name = options.network or published.guess(options.file)
  if name not in published.NETWORKS:
    raise ValueError(
      f"network is {name!r}; choose one of {', '.join(published.NETWORKS)}."
    )
  network = _chosen(published.NETWORKS[name], options)
  is_classifier = network.dataset is None
  model, partial = network.model(), options.partial or is_classifier
  # Before anything is copied.
  report = fcn.pretrained.compare(options.file, model)
  missing = published.missing_in_backbone(report)
  if is_classifier and missing and not options.partial:
    raise ValueError(
      f"{options.file} lacks parts of {name}, which training is to begin with: "
      f"{len(missing)} arrays, such as {missing[0]}, are missing or have "
      "another shape. Give another --network, or --partial to begin with their "
      "initial values."
    )
  try:
    variables, report = fcn.pretrained.load(
      options.file, model, partial=partial
    )
  except ValueError as error:
    raise ValueError(
      f"{error} Here: give --num-classes, another --network, or --partial."
    ) from error
  num_classes, head = network.num_classes, None
  if not isinstance(num_classes, int):
    head = options.head or next(iter(num_classes))
    num_classes = num_classes[head]
    variables = fcn.pretrained.take_head(variables, head)
  text = f"{options.file.name}: {name}\n{report}"
  if head is not None:
    text += f"\nkept of its heads: {head}"
  _save(
    network.config(options.workdir),
    variables,
    {
      "classes": published.class_table(network.dataset, num_classes),
      "weights": {
        "file": options.file.name,
        "network": name,
        "is_classifier": is_classifier,
      },
    },
    text,
  )
  if is_classifier:
    use = (
      "Begin training with it: fcn-jax train ... --init "
      f"{options.workdir} --backbone {network.options['backbone']} --inputs "
      f"{network.options['inputs']} --normalization "
      f"{network.options['normalization']}"
    )
  else:
    use = (
      f"Use it: fcn-jax predict PICTURES --workdir {options.workdir} --out OUT"
    )
  return f"{text}\n{options.workdir}: {num_classes} classes. {use}"


def _chosen(
  network: published.Published, options: Import
) -> published.Published:
  """The network, with the changes that were asked for."""
  heads = network.num_classes
  if isinstance(heads, int):
    if options.head is not None:
      raise ValueError(
        f"head is {options.head!r}, but the network has only one: leave it out."
      )
  elif options.head not in (None, *heads):
    raise ValueError(
      f"head is {options.head!r}; choose one of {', '.join(heads)}."
    )
  is_torchs = not fcn.pretrained.is_caffe(options.file)
  if is_torchs and network.options.get("auxiliary"):
    # torchvision has published FCNs with and without an auxiliary head.
    source = fcn.pretrained.read_state_dict(options.file)
    has_one = any(key.startswith("aux_classifier.") for key in source)
    changed = {**network.options, "auxiliary": has_one}
    # People train them for classes of their own.
    scores = source.get("classifier.4.bias", np.zeros(heads))
    heads = len(scores) if np.ndim(scores) else heads
    network = dataclasses.replace(network, options=changed, num_classes=heads)
  if options.num_classes is None:
    return network
  if network.dataset is None or not isinstance(heads, int):
    raise ValueError(
      f"num_classes is {options.num_classes}, but only an FCN with one head "
      "can have other classes: leave it out."
    )
  return dataclasses.replace(network, num_classes=options.num_classes)


def _check_workdir(workdir: pathlib.Path) -> None:
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f"{workdir} is not empty, and nothing in it will be touched: give "
      "another --workdir."
    )


def _save(config, variables, metadata, text) -> None:
  """Makes a work folder with one step, without a state of the optimizer.

  The folder is complete or, if something fails, absent.
  """
  variables = dict(variables)
  params = variables.pop("params")
  workdir = config.run.workdir
  # Reading the file took a while.
  _check_workdir(workdir)
  with contextlib.ExitStack() as undo:
    folder_lib.claim(config)
    steps = workdir / folder_lib.CHECKPOINTS
    with fcn.runs.checkpoints.Checkpoints(steps) as checkpoints:
      # Nobody else writes here, so everything in the folder is ours.
      undo.callback(shutil.rmtree, workdir, ignore_errors=True)
      checkpoints.save(
        0,
        {"step": np.int32(0), "params": params, "model_state": variables},
        metadata={**metadata, "options": folder_lib.as_json(config)},
      )
    report_file = workdir / REPORT_FILE
    report_file.write_text(text + "\n", encoding="utf-8")
    undo.pop_all()


def export_weights(options: Export) -> str:
  """Writes the state dict, and says what is in it.

  Raises:
    ValueError: if there is no such run, or the file exists already.
  """
  which = trained_model.parse_which(options.checkpoint)
  fcn.inference.exporting.check_free(options.out)
  network = fcn.runs.load(options.workdir, which)
  names = fcn.pretrained.torchvision_names
  try:
    arrays = names.state_dict(network.model, network.variables)
    origin = "torchvision's names"
  except ValueError:
    arrays = names.plain_state_dict(network.variables)
    origin = "the names of this package, as torchvision has no such network"
  fcn.pretrained.write_state_dict(options.out, arrays)
  if isinstance(network.model, fcn.models.LateFusion):
    seen = "Its modalities see what fcn_jax.models.input_normalization says."
  else:
    seen = _seen(network.model.inputs)
  return (
    f"{options.out}: {len(arrays)} arrays of {type(network.model).__name__} on "
    f"{network.model.backbone}, {len(network.class_names)} classes, step "
    f"{network.step}; {origin}.\n{seen}"
  )


def _seen(inputs: fcn.models.input_normalization.InputNormalization) -> str:
  """What the user of a state dict must do to the pixels."""
  scaled = ", ".join(f"{255 * x:.4g}" for x in inputs.scale)
  shifted = ", ".join(f"{x / 255:.4g}" for x in inputs.mean)
  return f"It sees RGB in 0..1, minus ({shifted}), times ({scaled})."


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, and converts.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.extras.subcommand_cli_from_dict(
    {"import": Import, "export": Export},
    prog="fcn-jax convert",
    description=__doc__,
    args=arguments,
  )
  with errors.explained():
    if isinstance(options, Import):
      print(import_weights(options))
    else:
      print(export_weights(options))

"""Converts published weights to a run, and trained ones for PyTorch.

    fcn-jax convert import fcn8s-heavy-pascal.caffemodel --workdir runs/fcn8s
    fcn-jax convert import vgg16.pth --workdir runs/vgg16_imagenet
    fcn-jax convert import fcn_resnet50_coco --workdir runs/coco
    fcn-jax convert export --workdir runs/mine --out mine.safetensors

`import` reads a .caffemodel, a state dict of PyTorch (.pth, .pt, .ckpt or
.safetensors, alone or in a checkpoint of a trainer) or an .h5 of Keras, and
makes a work folder for fcn-jax predict, evaluate and export, and for --init of
fcn-jax train. It recognises the network by itself. From a classifier it keeps
everything except the classes; the result is for --init only. It never runs code
in a file.

`export` writes the network of a run to a state dict for PyTorch (.safetensors):
with torchvision's names if torchvision has such a network, otherwise with the
papers' names of layers.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

import fcn_jax as fcn
from fcn_jax import holding
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.cli import errors
from fcn_jax.cli import published
from fcn_jax.cli import recognition
from fcn_jax.cli import state_dict_file
from fcn_jax.pretrained import weight_file
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder as folder_lib
from fcn_jax.runs import trained_model

REPORT_FILE = "weights.txt"
# Of the work folder; the first one is written last.
_CONTENTS = (folder_lib.CONFIG_FILE, folder_lib.CHECKPOINTS, REPORT_FILE)
_EXPORT = "a network of this package"
# torchvision's second head.
_AUXILIARY = "aux_classifier."


@dataclasses.dataclass(frozen=True)
class Import:
  """Makes a work folder from a file of published weights."""

  file: Annotated[pathlib.Path, tyro.conf.Positional]
  """The .caffemodel, .pth, .pt, .ckpt, .safetensors or .h5 file, or the
  model.safetensors.index.json of several parts; or the name of published
  weights, such as fcn_resnet50_coco, which are downloaded."""
  workdir: pathlib.Path
  """Work folder to make; it must not exist, or be empty."""
  network: str | None = None
  """Name of the network, as torchvision or the papers' authors call it;
  caffe-vgg16 and so on for Caffe's classifiers. Default: recognised from the
  file."""
  num_classes: int | None = None
  """Number of classes of an FCN that was trained for other classes than the
  published one. Default: recognised from the file."""
  inputs: config_lib.Inputs | None = None
  """Pixels that the weights were trained on, such as caffe (BGR in 0..255, less
  the mean) or torchvision (RGB, normalised), for files of PyTorch, whose names
  do not say it. Default: from the first kernels if they tell, or else by the
  names."""
  key: str | None = None
  """Key of the state dict in a checkpoint with several, such as model_ema."""
  classes: tuple[str, ...] = ()
  """Names of the classes, in the order of the scores. Default: those of the
  published network's data set."""
  dataset: str | None = None
  """Data set that fcn-jax evaluate scores the network on; folder for pictures
  and masks of your own. Default: the published network's, or folder for other
  classes."""
  head: str | None = None
  """Which head to keep of a network with several: semantic or geometric (SIFT
  Flow)."""
  partial: bool = False
  """Convert even if arrays are missing in the file or left over. If arrays that
  predict are missing, the result is for --init only."""


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
    WriteError: if the work folder cannot be made.
  """
  # First, since a folder in use is not to be made.
  _check_workdir(options.workdir)
  with holding.held(options.workdir):
    writing.remove_left_overs(options.workdir)
    return _import(options)


def _import(options: Import) -> str:
  name = str(options.file)
  if not options.file.exists() and name in fcn.pretrained.SOURCES:
    options = dataclasses.replace(
      options,
      file=fcn.pretrained.fetch(name),
      network=options.network or fcn.pretrained.SOURCES[name].network,
    )
  if options.network is not None and options.network not in published.NETWORKS:
    raise ValueError(
      f"network is {options.network!r}; choose one of "
      f"{', '.join(published.NETWORKS)}."
    )
  file = weight_file.read(
    options.file, weight_file.published_tables(), key=options.key
  )
  if file.exported is not None:
    return _import_exported(options, file)
  name, network = _network(options, file)
  is_classifier = network.dataset is None
  model, partial = network.model(), options.partial or is_classifier
  network, order, said = _pixels(options, file, network, model)
  model = network.model()
  # Before anything is copied.
  report = fcn.pretrained.compare(file, model, order=order)
  missing = recognition.missing_in_backbone(report)
  if is_classifier and missing and not options.partial:
    raise ValueError(
      f"{options.file} lacks parts of {name}, which training is to begin with: "
      f"{len(missing)} arrays, such as {missing[0]}, are missing or have "
      "another shape. Give another --network, or --partial to begin with their "
      "initial values."
    )
  if name == "voc-fcn8s" and file.naming == "papers":
    said.append(
      "skips: not scaled, by its names; if it was trained at once, import it "
      "with --network voc-fcn8s-atonce"
    )
  auxiliary = [x for x in file.arrays if x.startswith(_AUXILIARY)]
  if auxiliary and not network.options.get("auxiliary"):
    # It does not predict, and the network has none.
    said.append("left out: the auxiliary head, which has other classes")
    others = {k: v for k, v in file.arrays.items() if k not in auxiliary}
    file = file._replace(arrays=others)
  try:
    variables, report = fcn.pretrained.load(
      file, model, partial=partial, order=order
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
    said.append(f"kept of its heads: {head}")
  table = _classes(options, network.dataset, num_classes)
  config = network.config(options.workdir)
  if options.dataset or options.classes:
    config = config.replace(dataset=options.dataset or "folder")
  untrained = [x for x in report.new() if "/aux_" not in x and "_aux_" not in x]
  return _finish(
    config,
    variables,
    table,
    {
      "file": options.file.name,
      "network": name,
      "is_classifier": is_classifier,
      "untrained": [] if is_classifier else untrained,
    },
    [f"{options.file.name}: {name}", *file.said, *said, str(report)],
  )


def _import_exported(options: Import, file: weight_file.WeightFile) -> str:
  """Makes a work folder from a file that `export` wrote."""
  for name in ("network", "num_classes", "head", "inputs", "key"):
    if getattr(options, name) is not None:
      raise ValueError(
        f"{options.file} says itself what it is, as fcn-jax convert export "
        f"wrote it: leave out --{name.replace('_', '-')}."
      )
  config = state_dict_file.config_of(file, options.workdir)
  classes = file.exported["classes"]
  model = build.model(config, len(classes["names"]))
  variables, report = fcn.pretrained.load(file, model, partial=options.partial)
  if options.classes:
    names = _classes(options, None, len(classes["names"]))["names"]
    classes = {**classes, "names": names}
  if options.dataset:
    config = config.replace(dataset=options.dataset)
  return _finish(
    config,
    variables,
    classes,
    {
      "file": options.file.name,
      "network": _EXPORT,
      "is_classifier": bool(file.exported.get("is_classifier")),
      "untrained": [*file.exported.get("untrained", ()), *report.new()],
    },
    [f"{options.file.name}: {_EXPORT}", str(report)],
  )


def _finish(config, variables, classes, weights, lines) -> str:
  """Makes the folder, and says how to use it."""
  text = "\n".join(line for line in lines if line)
  metadata = {"classes": classes, "weights": weights}
  _save(config, variables, metadata, text)
  workdir, network = config.run.workdir, config.network
  names = weights["untrained"]
  if weights["is_classifier"] or names:
    use = (
      "Begin training with it: fcn-jax train ... --init "
      f"{workdir} --backbone {network.backbone} --normalization "
      f"{network.normalization}"
    )
    if network.inputs is not None:
      use += f" --inputs {network.inputs}"
    if network.architecture != "fcn":
      use += f" --architecture {network.architecture}"
    if names:
      use += (
        f"\nIt cannot predict, as these arrays are new: "
        f"{weight_file.some(names)}"
      )
  else:
    use = f"Use it: fcn-jax predict PICTURES --workdir {workdir} --out OUT"
  num_classes = len(classes["names"])
  return f"{text}\n{workdir}: {num_classes} classes. {use}"


def _classes(options, dataset, num_classes):
  """Names and colours of the classes, those that were given first."""
  if options.classes and len(options.classes) != num_classes:
    raise ValueError(
      f"classes are {len(options.classes)} names, but the network has "
      f"{num_classes} classes: name all of them, in the order of its scores."
    )
  if len(set(options.classes)) != len(options.classes):
    raise ValueError("classes: two have the same name.")
  return published.class_table(
    options.dataset or dataset, num_classes, options.classes
  )


def _network(
  options: Import, file: weight_file.WeightFile
) -> tuple[str, published.Published]:
  """The network of a file, with the changes that were asked for."""
  if options.network is None:
    name, network = recognition.guess(file)
  else:
    name = options.network
    network = recognition.named(name, file)
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
  if options.num_classes is None:
    return name, network
  if network.dataset is None or not isinstance(heads, int):
    raise ValueError(
      f"num_classes is {options.num_classes}, but only an FCN with one head "
      "can have other classes: leave it out."
    )
  dataset = network.dataset if options.num_classes == heads else "folder"
  return name, dataclasses.replace(
    network, num_classes=options.num_classes, dataset=dataset
  )


def _pixels(options, file, network, model):
  """Which pixels the weights are for.

  Returns:
    The network with these inputs; the image channels in the order of the file,
    None as its names have it; and sentences about it.

  Raises:
    ValueError: if the file is for pixels in 0..255, and nothing says in which
      order.
  """
  if file.naming == "caffe":
    if options.inputs is None:
      return network, None, []
    changed = {**network.options, "inputs": options.inputs}
    return dataclasses.replace(network, options=changed), None, []
  found = fcn.pretrained.loading.pixels(file, model)
  inputs, order, said = options.inputs, None, []
  if inputs is None:
    if found == "0..255" and network.options["inputs"] != "caffe":
      raise ValueError(
        f"{options.file}: the batch statistics after its first convolution are "
        "those of pixels in 0..255, not of normalised ones. Give --inputs "
        "caffe if it was trained on BGR, less Caffe's mean."
      )
    if found in ("caffe_bgr", "caffe_rgb"):
      inputs = "caffe"
      said.append(
        "pixels: its first kernels are those of VGG16 for Caffe, for "
        f"{found[-3:].upper()} in 0..255"
      )
    elif found == "normalised":
      said.append(
        "pixels: normalised, by the batch statistics of its first layer; the "
        "order of channels by its names"
      )
    else:
      said.append(
        f"pixels: {network.options['inputs']}, by its names; its values do not "
        "tell. If they are wrong, give --inputs"
      )
  inputs = inputs or network.options["inputs"]
  network = dataclasses.replace(
    network, options={**network.options, "inputs": inputs}
  )
  if found == "caffe_rgb":
    order = (0, 1, 2)
  elif options.inputs or found == "caffe_bgr":
    order = network.model().inputs.order
    if options.inputs:
      letters = "".join("RGB"[i] for i in order[:3])
      said.append(
        f"pixels: {inputs}, as you say, {letters} in the file"
        + (f"; its values say {found}" if found else "")
      )
  return network, order, said


def _check_workdir(workdir: pathlib.Path) -> None:
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  if not workdir.exists():
    return
  # Its lock and what a killed program left are not in the way.
  there = {name for name in os.listdir(workdir) if not holding.is_ours(name)}
  is_unfinished = there <= {*_CONTENTS} and writing.is_unfinished(
    workdir, _CONTENTS
  )
  if there and not is_unfinished:
    raise ValueError(
      f"{workdir} is not empty, and nothing in it will be touched: give "
      "another --workdir."
    )


def _save(config, variables, metadata, text) -> None:
  """Fills a work folder with one step, without a state of the optimizer."""
  variables = dict(variables)
  params = variables.pop("params")
  workdir = config.run.workdir
  # Reading the file took a while.
  _check_workdir(workdir)
  with writing.together(workdir, _CONTENTS) as new:
    options = folder_lib.as_json(config)
    fcn.runs.records.write_json(new / folder_lib.CONFIG_FILE, options)
    steps = new / folder_lib.CHECKPOINTS
    with fcn.runs.checkpoints.Checkpoints(steps) as checkpoints:
      checkpoints.save(
        0,
        {"step": np.int32(0), "params": params, "model_state": variables},
        metadata={**metadata, "options": options},
      )
    writing.write_text(new / REPORT_FILE, text + "\n")


def export_weights(options: Export) -> str:
  """Writes the state dict, and says what is in it.

  Raises:
    ValueError: if there is no such run, or the file exists already.
  """
  which = trained_model.parse_which(options.checkpoint)
  fcn.inference.exporting.check_free(options.out)
  network = fcn.runs.load(options.workdir, which)
  return state_dict_file.write(options.out, network)


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
      print(reprs.printable(import_weights(options)))
    else:
      print(reprs.printable(export_weights(options)))

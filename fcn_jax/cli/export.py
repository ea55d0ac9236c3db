"""Writes a trained network to one file that needs none of this code to run.

    fcn-jax export --workdir RUN --out network.zip

RUN is the work folder of a run. The file holds the parameters, the classes and
the programs (StableHLO), for any number of pictures of any size, on a CPU, GPU
or TPU. It runs by itself wherever jax, flatbuffers, numpy and pillow are
installed:

    python network.zip street.jpg --overlay

writes segmented/classes/street.png and segmented/overlays/street.jpg; --help
lists the options. Pictures are read, and refused, as by fcn-jax predict; TIFF
files and pictures of 16 bits also need tifffile and imagecodecs.

--format onnx writes an ONNX file instead, for runtimes without JAX; see
fcn_jax/inference/onnx_files.py.

You can also use it in a server: see fcn_jax/inference/exported.py. A file works
with versions of JAX up to six months newer, or three weeks older, than the one
that exported it. Export again when you install another JAX.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

import tyro

import fcn_jax as fcn
from fcn_jax import reprs
from fcn_jax.cli import errors
from fcn_jax.runs import trained_model


@dataclasses.dataclass(frozen=True)
class Options:
  """What to export, and where to."""

  workdir: pathlib.Path
  """Work folder of the run that trained the network."""
  out: pathlib.Path
  """The file to write, such as network.zip; it must not exist."""
  checkpoint: str = "best"
  """best (by validation mean IU; the newest if none was validated), latest, or
  the number of a step."""
  format: Literal["jax", "onnx"] = "jax"
  """jax: a program that runs by itself with JAX. onnx: a graph for ONNX
  Runtime, TensorRT and others."""


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, and exports.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options, prog="fcn-jax export", description=__doc__, args=arguments
  )
  with errors.explained():
    which = trained_model.parse_which(options.checkpoint)
    fcn.inference.exporting.check_free(options.out)
    if options.format == "onnx":
      fcn.inference.onnx_files.check_installed()
    network = fcn.runs.load(options.workdir, which)
    network.check_is_trained()
    network.check_sees_pictures()
  about = {
    "class_names": network.class_names,
    "palette": network.palette,
    "resize": network.config.data.resize,
  }
  if options.format == "onnx":
    with errors.explained(OSError):
      fcn.inference.export_onnx(
        options.out, network.model, network.variables, **about
      )
    text = onnx_summary(options.out, len(network.class_names), about["resize"])
    print(reprs.printable(text))
    return
  with errors.explained(OSError):
    fcn.inference.export(
      options.out, network.model, network.variables, **about, step=network.step
    )
  # Read the file back, so that the message describes what it holds.
  with errors.explained():
    exported = fcn.inference.load_exported(options.out)
  print(reprs.printable(summary(options.out, exported)))


def summary(
  path: pathlib.Path, exported: fcn.inference.exported.ExportedNetwork
) -> str:
  """What was written, and how to run it."""
  about = exported.metadata
  lines = [
    f"{path}: {path.stat().st_size / 1e6:.1f} MB, "
    f"{len(exported.class_names)} classes, step {about['step']}",
    f"platforms: {', '.join(about['platforms'])}; JAX {about['jax']} and up to "
    "six months newer",
    "input: RGB pictures of any size, any number at once",
  ]
  if exported.resize != 1:
    lines.append(
      f"`predict` expects them resized by {exported.resize:g}, as in training; "
      "`segment` and the program do that themselves"
    )
  lines += [
    "Run it where jax, flatbuffers, numpy and pillow are installed:",
    f"  python {path.name} PICTURE...",
    "or in Python:",
    f'  sys.path.insert(0, "{path.name}")',
    f'  import exported; network = exported.load("{path.name}")',
    "  classes = network.segment(picture)  # [H, W, 3] uint8 to [H, W] uint8",
  ]
  return "\n".join(lines)


def onnx_summary(path: pathlib.Path, num_classes: int, resize: float) -> str:
  """What an ONNX file holds, and how to run it."""
  lines = [
    f"{path}: {path.stat().st_size / 1e6:.1f} MB, {num_classes} classes",
    "input: images [N, H, W, 3] uint8, RGB; outputs: classes [N, H, W] uint8, "
    "scores [N, C, H, W] float32",
  ]
  if resize != 1:
    lines.append(
      f"it expects pictures resized by {resize:g}, as in training: resize first"
    )
  lines += [
    "Run it in Python where onnxruntime is installed:",
    f'  session = onnxruntime.InferenceSession("{path.name}")',
    '  (classes,) = session.run(["classes"], {"images": picture[None]})',
  ]
  return "\n".join(lines)

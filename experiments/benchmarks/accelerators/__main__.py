"""Estimates the time of losses and networks on a TPU or GPU, without one.

    make tpu-compile gpu-compile
    PYTHONPATH=.venv-compilers python -m experiments.benchmarks.accelerators

Compiles the loss in all its forms, networks (--table networks), or train steps
that devices share (--table layouts, --device v5e:4x4), for the device and reads
the compiled programs, see `analysis`. Nothing runs: times are the compiler's
estimates (TPU) or bounds (GPU). A network takes minutes.
"""

import dataclasses
import functools
import importlib.metadata
from typing import Literal

import jax
import jax.numpy as jnp
import tyro

import fcn_jax as fcn
from experiments.benchmarks.accelerators import analysis
from experiments.benchmarks.accelerators import layouts
from experiments.benchmarks.accelerators import programs
from experiments.benchmarks.accelerators import topologies
from fcn_jax import sampling


@dataclasses.dataclass(frozen=True)
class Options:
  """What to compile for."""

  device: str = "v5e:1x1"
  """A TPU topology such as v5e:1x1 or v6e:1x1, or h100:1."""
  num_images: int = 16
  """Images of a step, on all devices (layouts)."""
  image_size: int = 512
  """Height and width of an image (layouts)."""
  layouts: tuple[str, ...] = ()
  """Names of layouts, as the table prints them. Default: all."""
  num_classes: tuple[int, ...] = (21, 150)
  """Numbers of classes."""
  table: Literal["loss", "networks", "layouts"] = "loss"
  """What to compile."""
  networks: tuple[str, ...] = ()
  """Names of networks, as the table prints them. Default: all."""
  programs: tuple[Literal["step", "predict", "evaluate"], ...] = (
    "step",
    "predict",
    "evaluate",
  )
  """What to compile of each network; evaluate counts the confusion matrix of
  padded images."""


def cases(num_classes: int) -> list[tuple[str, sampling.Sampler, str]]:
  """Name, sampler and form of each line of the table."""
  everything = sampling.whole_image()
  low = 1 / 4 if num_classes < 100 else 1 / 8
  return [
    ("all pixels", everything, "logits"),
    ("all pixels", everything, "strips"),
    ("all pixels", everything, "blocks"),
    ("all pixels", everything, "auto"),
    (f"blocks at {low:g}", sampling.bernoulli(rate=low), "blocks"),
    (f"blocks at {low:g}", sampling.bernoulli(rate=low), "auto"),
    ("places at 1/4", sampling.places(rate=1 / 4), "places"),
    ("places at 1/16", sampling.places(rate=1 / 16), "places"),
    ("places at 1/16", sampling.places(rate=1 / 16), "auto"),
    ("pixels at 1/16", sampling.bernoulli(rate=1 / 16, unit="pixel"), "pixels"),
    ("pixels at 1/16", sampling.bernoulli(rate=1 / 16, unit="pixel"), "auto"),
  ]


def main(options: Options) -> None:
  """Prints the table."""
  # A program for a device that is not here cannot be read from a cache.
  jax.config.update("jax_enable_compilation_cache", False)
  is_gpu = options.device.startswith("h100")
  package = "jax-cuda12-plugin" if is_gpu else "libtpu"
  version = importlib.metadata.version(package)
  print(
    f"Compiled for {options.device} by {package} {version}. Nothing ran.\n",
    flush=True,
  )
  tables = {
    "loss": print_losses,
    "networks": print_networks,
    "layouts": print_layouts,
  }
  tables[options.table](options, "gpu" if is_gpu else "tpu")


def print_losses(options: Options, platform: str) -> None:
  """The loss in all its forms."""
  print(
    "16 images of 512x512, stride 8, value and gradient.\n\n"
    "| classes | sampler | form | ms | launches | temporary MB "
    "| gathers, scatters, sorts | loops of unknown length |\n"
    "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |"
  )
  mesh = topologies.mesh(options.device)
  for num_classes in options.num_classes:
    for name, sampler, form in cases(num_classes):
      compiled = programs.loss(
        mesh, sampler, num_classes=num_classes, form=form
      )
      found = analysis.read(compiled.as_text(), platform=platform)
      memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
      print(
        f"| {num_classes} | {name} | {form} | {1e3 * found.seconds:.2f} "
        f"| {found.launches} | {memory:.0f} | {found.unestimated} "
        f"| {found.dynamic_loops} |",
        flush=True,
      )


# Operations a second of products of bfloat16, from the makers' data sheets.
PEAK = {"v5e": 197e12, "v6e": 918e12, "h100": 989e12}


def networks(num_classes: int) -> dict[str, tuple[fcn.models.Network, int]]:
  """Networks, and the side of the images that they see."""
  small = functools.partial(
    fcn.models.FCN, num_classes, backbone="vgg_small", dtype=jnp.bfloat16
  )
  vgg16 = functools.partial(fcn.models.FCN, num_classes, backbone="vgg16")
  return {
    "vgg_small": (small(), 256),
    "vgg_small, batch norm": (small(normalization="batch"), 256),
    "VGG16 FCN-8s": (vgg16(dtype=jnp.bfloat16), 512),
    "VGG16 FCN-8s, float32": (vgg16(), 512),
    "fcn_resnet50": (
      fcn.models.FCNResNet(num_classes, auxiliary=True, dtype=jnp.bfloat16),
      512,
    ),
  }


def print_networks(options: Options, platform: str) -> None:
  """Train steps, predictions and evaluations of whole networks."""
  print(
    "16 images; bfloat16 unless it says otherwise; the loss of all pixels.\n\n"
    "| network | side | classes | program | ms | temporary GB "
    "| TFLOP of the layers | share of peak | gathers, scatters, sorts |\n"
    "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
  )
  mesh = topologies.mesh(options.device)
  peak = mesh.size * PEAK[options.device.split(":")[0]]
  compilers = {
    "step": functools.partial(
      programs.train_step, sampler=fcn.sampling.whole_image()
    ),
    "predict": programs.predict,
    "evaluate": programs.evaluate,
  }
  for num_classes in options.num_classes:
    for name, (model, side) in networks(num_classes).items():
      if options.networks and name not in options.networks:
        continue
      sizes = {"num_images": 16, "image_size": side}
      forward = programs.num_flops(model, **sizes)
      for program in options.programs:
        compiled = compilers[program](mesh, model, **sizes)
        found = analysis.read(compiled.as_text(), platform=platform)
        memory = compiled.memory_analysis().temp_size_in_bytes / 1e9
        # The gradients of inputs and kernels take a forward pass each.
        flops = forward * (3 if program == "step" else 1)
        share = flops / found.seconds / peak
        print(
          f"| {name} | {side} | {num_classes} | {program} "
          f"| {1e3 * found.seconds:.1f} | {memory:.2f} | {flops / 1e12:.2f} "
          f"| {share:.0%} | {found.unestimated} |",
          flush=True,
        )


def print_layouts(options: Options, platform: str) -> None:
  """Train steps that devices share: by images, by rows, and their state."""
  if platform != "tpu":
    raise ValueError(
      f"device is {options.device}; layouts are compiled for a TPU, such as "
      "v5e:4x4."
    )
  for num_classes in options.num_classes:
    for name, (model, _) in networks(num_classes).items():
      if options.networks and name not in options.networks:
        continue
      print(f"{name}, {num_classes} classes.\n\n{layouts.HEADER}", flush=True)
      for line in layouts.lines(
        options.device,
        model,
        num_images=options.num_images,
        image_size=options.image_size,
        wanted=options.layouts,
      ):
        print(line, flush=True)


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))

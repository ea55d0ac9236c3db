"""Estimates the time of the loss on a TPU or GPU, without one.

    make tpu-compile gpu-compile
    PYTHONPATH=.venv-compilers python -m experiments.benchmarks.accelerators

Compiles the loss in all its forms for the device and reads the compiled
programs, see `analysis`. Nothing runs: times are the compiler's estimates (TPU)
or bounds (GPU).
"""

import dataclasses
import importlib.metadata

import jax
import tyro

from experiments.benchmarks.accelerators import analysis
from experiments.benchmarks.accelerators import programs
from experiments.benchmarks.accelerators import topologies
from fcn_jax import sampling


@dataclasses.dataclass(frozen=True)
class Options:
  """What to compile for."""

  device: str = "v5e:1x1"
  """A TPU topology such as v5e:1x1 or v6e:1x1, or h100:1."""
  num_classes: tuple[int, ...] = (21, 150)
  """Numbers of classes."""


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
  mesh = topologies.mesh(options.device)
  is_gpu = options.device.startswith("h100")
  platform = "gpu" if is_gpu else "tpu"
  package = "jax-cuda12-plugin" if is_gpu else "libtpu"
  version = importlib.metadata.version(package)
  print(
    f"Compiled for {options.device} by {package} {version}; 16 images of "
    "512x512, stride 8, value and gradient. Nothing ran.\n"
  )
  print(
    "| classes | sampler | form | ms | launches | temporary MB "
    "| gathers, scatters, sorts | loops of unknown length |\n"
    "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |"
  )
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


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))

"""Makes the table of networks: sizes, and the time of a forward pass.

    python -m experiments.benchmarks.networks

Parameters, receptive fields and strides are those of the networks as this
package makes them, with 21 classes where no others were published. Times are
those of one picture, from bytes to the coarse scores, compiled, with random
parameters. Each network takes turns with FCN-32s on VGG16, so that other work
on the machine slows both equally: compare the ratios.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

import fcn_jax as fcn


@dataclasses.dataclass(frozen=True)
class Options:
  """Size of the picture, and how often."""

  height: int = 375
  """Rows of the picture."""
  width: int = 500
  """Columns of the picture."""
  rounds: int = 5
  """How often each network is timed; the median counts."""
  only: str = ""
  """Only networks whose names contain this."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A network of the table.

  Attributes:
    name: name in the table.
    make: makes it.
    weights: who published them, and the name of the file.
    score: the published one in percent, and what it is.
  """

  name: str
  make: Callable[[], fcn.models.Network]
  weights: str
  score: str = ""


def released_rows() -> list[Row]:
  """The papers' released networks."""
  rows = []
  for name, released in fcn.models.released.NETWORKS.items():
    score = ", ".join(f"{x} {split}" for split, x in released.mean_iu.items())
    rows.append(Row(name, released.network, released.file or "", score))
  return rows


def classifier_rows() -> list[Row]:
  """FCNs on classifiers, to be trained, and torchvision's own."""
  pixels = fcn.models.input_normalization
  rows = [
    Row(
      "FCN-32s, googlenet",
      functools.partial(
        fcn.models.FCN, 21, backbone="googlenet", stride=32, padding="caffe"
      ),
      "bvlc_googlenet (backbone)",
      "42.5 VOC11 val (Table 1)",
    )
  ]
  for name, backbone in fcn.pretrained.torchvision_names.CLASSIFIERS.items():
    inputs = pixels.INCEPTION if name == "googlenet" else pixels.TORCHVISION
    make = functools.partial(
      fcn.models.FCN, 21, backbone=backbone, stride=8, inputs=inputs
    )
    rows.append(
      Row(f"FCN-8s, {backbone}", make, f"torchvision {name} (backbone)")
    )
  for number, score in ((50, "60.5"), (101, "63.7")):
    make = functools.partial(
      fcn.models.FCNResNet, 21, backbone=f"resnet{number}", auxiliary=True
    )
    rows.append(
      Row(
        f"fcn_resnet{number}",
        make,
        f"torchvision fcn_resnet{number}",
        f"{score} COCO, VOC's classes",
      )
    )
  return rows


class Timed:
  """A compiled network with random parameters, and how to run it once."""

  def __init__(self, model: fcn.models.Network, height: int, width: int):
    shape = (1, height, width, model.num_channels)
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = jnp.asarray(values)

    @jax.jit
    def init():
      return model.init(jax.random.key(0), images[:, :64, :64], train=False)

    @jax.jit
    def forward(variables):
      return fcn.models.heads.predicted_scores(model, variables, images).scores

    variables = init()
    self.num_parameters = sum(
      x.size for x in jax.tree.leaves(variables["params"])
    )
    self._run = functools.partial(forward, variables)
    self.seconds()

  def seconds(self) -> float:
    """Seconds of one forward pass; the first one compiles."""
    begin = time.perf_counter()
    self._run().block_until_ready()
    return time.perf_counter() - begin


def main(options: Options) -> None:
  """Times the networks, and prints the table."""
  rows = [
    row
    for row in (*released_rows(), *classifier_rows())
    if options.only in row.name
  ]
  size = options.height, options.width
  reference = Timed(fcn.models.released.make("voc-fcn32s"), *size)
  lines = []
  for row in tqdm.tqdm(rows, desc="networks", disable=None):
    model = row.make()
    timed = Timed(model, *size)
    pairs = [
      (timed.seconds(), reference.seconds()) for _ in range(options.rounds)
    ]
    own = statistics.median(pair[0] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    layers = model.chain().score
    if layers[-1].name == "resized":
      # Interpolation, which is not part of the other fields either.
      layers = layers[:-1]
    field = fcn.geometry.receptive_field(layers)
    classes = " + ".join(str(number) for number in model.heads.values())
    if isinstance(model, fcn.models.FCNResNet):
      classes = f"{model.num_classes}"
    lines.append(
      f"| {row.name} | {classes} | {timed.num_parameters:,} | {field} "
      f"| {model.stride} | {own:.2f} | {ratio:.2f} | {row.weights} "
      f"| {row.score} |"
    )
    del timed
  print(
    f"1 picture of {options.height}x{options.width}, float32, "
    f"{jax.devices()[0].device_kind}, jax {jax.__version__}, medians of "
    f"{options.rounds}; ratio to voc-fcn32s\n"
  )
  print(
    "| network | classes | parameters | receptive field | stride | forward s "
    "| ratio | weights | published mean IU |"
  )
  print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |")
  print("\n".join(lines))


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))

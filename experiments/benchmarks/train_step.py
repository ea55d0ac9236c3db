"""Times train steps against PyTorch's, on the CPU.

    python -m experiments.benchmarks.train_step

FCN-32s on VGG16 (134 M parameters, padding "same"), and torchvision's
fcn_resnet50 with its auxiliary head (channels last in PyTorch, which is faster
there). Both packages run the same network in float32 on the same batch, with
the same loss (mean cross-entropy over all pixels) and stochastic gradient
descent with momentum. They run in pairs, one after the other, so that other
work on the machine slows both equally: compare the ratios.
Each has a process to itself: in one process, the threads and the memory of the
one slow down the other. Needs PyTorch: `make parity` installs it.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from typing import Literal, get_args

import jax
import numpy as np
import optax
import tqdm
import tyro

import fcn_jax as fcn

try:
  import torch
except ModuleNotFoundError:
  raise SystemExit(
    "This benchmark compares with PyTorch, which is not installed here: "
    "`make parity` installs it into .venv."
  ) from None

from experiments.benchmarks import torch_networks

Network = Literal["FCN-32s", "fcn_resnet50"]
AUXILIARY_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  batch_size: int = 2
  """Images a step."""
  image_size: int = 256
  """Side of the images in pixels."""
  num_classes: int = 21
  """Classes scored."""
  rounds: int = 5
  """Timings in each process, of which the median counts."""
  pairs: int = 5
  """Processes of each, of whose ratios the median counts."""
  networks: tuple[Network, ...] = get_args(Network)
  """Networks to time."""
  contestant: Literal["PyTorch", "fcn_jax"] | None = None
  """Time only this one, in this process, and print JSON."""


class TorchFCN32s(torch.nn.Module):
  """FCN-32s with padding "same", as PyTorch users write it."""

  def __init__(self, num_classes: int):
    super().__init__()
    architecture = fcn.models.backbones.vgg.ARCHITECTURES["vgg16"]
    layers, channels = [], 3
    for width, depth in zip(
      architecture.widths, architecture.depths, strict=True
    ):
      for _ in range(depth):
        layers += [torch.nn.Conv2d(channels, width, 3, padding=1)]
        layers += [torch.nn.ReLU(inplace=True)]
        channels = width
      layers += [torch.nn.MaxPool2d(2, ceil_mode=True)]
    layers += [
      torch.nn.Conv2d(channels, architecture.head_width, 7, padding=3),
      torch.nn.ReLU(inplace=True),
      torch.nn.Dropout(0.5),
      torch.nn.Conv2d(architecture.head_width, architecture.head_width, 1),
      torch.nn.ReLU(inplace=True),
      torch.nn.Dropout(0.5),
      torch.nn.Conv2d(architecture.head_width, num_classes, 1),
    ]
    self.layers = torch.nn.Sequential(*layers)

  def forward(self, images):
    return torch.nn.functional.interpolate(
      self.layers(images),
      size=images.shape[2:],
      mode="bilinear",
      align_corners=False,
    )


def torch_functions(options: Options, network: Network, images, labels):
  """The forward pass and the train step of PyTorch, as functions of nothing."""
  images = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
  if network == "FCN-32s":
    model, layout = TorchFCN32s(options.num_classes), torch.contiguous_format
  else:
    model = torch_networks.FCN(
      torch_networks.RESNET_DEPTHS["resnet50"],
      (64, 128, 256, 512),
      options.num_classes,
    )
    layout = torch.channels_last
    images = images / 255
  model = model.to(memory_format=layout)
  images = images.contiguous(memory_format=layout)
  optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
  labels = torch.from_numpy(labels.astype(np.int64))

  loss_of = torch.nn.functional.cross_entropy

  def forward():
    model.eval()
    with torch.no_grad():
      model(images)

  def step():
    model.train()
    optimizer.zero_grad()
    outputs = model(images)
    if isinstance(outputs, dict):
      loss = loss_of(outputs["out"], labels)
      loss += AUXILIARY_WEIGHT * loss_of(outputs["aux"], labels)
    else:
      loss = loss_of(outputs, labels)
    loss.backward()
    optimizer.step()

  return forward, step


def jax_functions(options: Options, network: Network, images, labels):
  """The forward pass and the train step of fcn_jax."""
  if network == "FCN-32s":
    model = fcn.models.FCN(options.num_classes, backbone="vgg16", stride=32)
  else:
    model = fcn.models.FCNResNet(
      options.num_classes,
      auxiliary=True,
      auxiliary_weight=AUXILIARY_WEIGHT,
    )
  optimizer = optax.sgd(1e-5, momentum=0.9)
  state = fcn.train.create_state(jax.random.key(0), model, optimizer)
  train_step = fcn.train.make_train_step(model, optimizer)
  batch = jax.device_put(fcn.types.Batch(images, labels))
  key = jax.random.key(1)

  @jax.jit
  def score(variables, images):
    score_maps = model.apply(variables, images, train=False)
    return jax.tree.map(
      fcn.upsampling.to_pixels,
      fcn.models.heads.by_name(score_maps),
      is_leaf=lambda leaf: isinstance(leaf, fcn.types.ScoreMap),
    )

  def forward():
    jax.block_until_ready(score(fcn.train.variables(state), batch.images))

  def step():
    nonlocal state
    state, metrics = train_step(state, batch, key)
    metrics.loss.block_until_ready()

  return forward, step


def time_contestant(options: Options, network: Network) -> dict[str, float]:
  """Median seconds of the forward pass and of the train step."""
  generator = np.random.default_rng(0)
  shape = (options.batch_size, options.image_size, options.image_size)
  images = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
  labels = generator.integers(0, options.num_classes, shape, dtype=np.int32)
  make = {"PyTorch": torch_functions, "fcn_jax": jax_functions}
  functions = make[options.contestant](options, network, images, labels)
  medians = {}
  for name, function in zip(("forward", "train step"), functions, strict=True):
    function()  # Compiles and allocates.
    seconds = []
    for _ in range(options.rounds):
      begin = time.perf_counter()
      function()
      seconds.append(time.perf_counter() - begin)
    medians[name] = statistics.median(seconds)
  return medians


def main(options: Options) -> None:
  """Runs the pairs and prints the table."""
  if options.contestant is not None:
    (network,) = options.networks
    print(json.dumps(time_contestant(options, network)))
    return
  print(
    f"Batch {options.batch_size} of {options.image_size}x{options.image_size}, "
    f"float32, {torch.get_num_threads()} threads, medians of {options.pairs} "
    f"pairs; jax {jax.__version__}, torch {torch.__version__}\n"
  )
  print("| network | | PyTorch s | fcn_jax s | ratio | range of ratios |")
  print("| --- | --- | ---: | ---: | ---: | ---: |")
  for network in options.networks:
    print_rows(options, network)


def print_rows(options: Options, network: Network) -> None:
  """Runs the pairs of a network and prints its rows."""
  names = ("PyTorch", "fcn_jax")
  seconds = {name: [] for name in names}
  for _ in tqdm.trange(options.pairs, desc=network, disable=None):
    for name in names:
      process = subprocess.run(
        [
          *(sys.executable, "-m", "experiments.benchmarks.train_step"),
          *sys.argv[1:],
          *("--networks", network, "--contestant", name),
        ],
        stdout=subprocess.PIPE,
        check=True,
      )
      seconds[name].append(json.loads(process.stdout))
  for what in ("forward", "train step"):
    theirs, ours = ([run[what] for run in seconds[name]] for name in names)
    ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
    print(
      f"| {network} | {what} | {statistics.median(theirs):.3f} "
      f"| {statistics.median(ours):.3f} | {statistics.median(ratios):.2f} "
      f"| {min(ratios):.2f}-{max(ratios):.2f} |",
      flush=True,
    )


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))

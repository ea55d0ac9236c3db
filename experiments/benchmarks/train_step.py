"""Times a train step of FCN-32s (VGG16) against PyTorch's, on the CPU.

    python -m experiments.benchmarks.train_step

Both run the same network, 134 M parameters at padding "same", float32, on the
same batch, with the same loss (mean cross-entropy over all pixels) and
stochastic gradient descent with momentum. They run in pairs, one after the
other, so that other work on the machine slows both equally: compare the ratios.
Each has a process to itself: in one process, the threads and the memory of the
one slow down the other. Needs PyTorch: `make parity` installs it.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from typing import Literal

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


def torch_functions(options: Options, images, labels):
  """The forward pass and the train step of PyTorch, as functions of nothing."""
  model = TorchFCN32s(options.num_classes)
  optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
  images = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
  images = images.contiguous()
  labels = torch.from_numpy(labels.astype(np.int64))

  def forward():
    model.eval()
    with torch.no_grad():
      model(images)

  def step():
    model.train()
    optimizer.zero_grad()
    logits = model(images)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    optimizer.step()

  return forward, step


def jax_functions(options: Options, images, labels):
  """The forward pass and the train step of fcn_jax."""
  model = fcn.models.FCN(options.num_classes, backbone="vgg16", stride=32)
  optimizer = optax.sgd(1e-5, momentum=0.9)
  state = fcn.train.create_state(jax.random.key(0), model, optimizer)
  train_step = fcn.train.make_train_step(model, optimizer)
  batch = jax.device_put(fcn.types.Batch(images, labels))
  key = jax.random.key(1)
  score = jax.jit(
    lambda variables, images: fcn.upsampling.to_pixels(
      model.apply(variables, images, train=False)
    )
  )

  def forward():
    score({"params": state.params}, batch.images).block_until_ready()

  def step():
    nonlocal state
    state, metrics = train_step(state, batch, key)
    metrics.loss.block_until_ready()

  return forward, step


def time_contestant(options: Options) -> dict[str, float]:
  """Median seconds of the forward pass and of the train step."""
  generator = np.random.default_rng(0)
  shape = (options.batch_size, options.image_size, options.image_size)
  images = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
  labels = generator.integers(0, options.num_classes, shape, dtype=np.int32)
  make = {"PyTorch": torch_functions, "fcn_jax": jax_functions}
  functions = make[options.contestant](options, images, labels)
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
    print(json.dumps(time_contestant(options)))
    return
  names = ("PyTorch", "fcn_jax")
  seconds = {name: [] for name in names}
  for _ in tqdm.trange(options.pairs, desc="pairs", disable=None):
    for name in names:
      process = subprocess.run(
        [sys.executable, *sys.argv, "--contestant", name],
        stdout=subprocess.PIPE,
        check=True,
      )
      seconds[name].append(json.loads(process.stdout))

  print(
    f"FCN-32s (VGG16), batch {options.batch_size} of {options.image_size}x"
    f"{options.image_size}, float32, {torch.get_num_threads()} threads, "
    f"medians of {options.pairs} pairs; jax {jax.__version__}, torch "
    f"{torch.__version__}\n"
  )
  print("| | PyTorch s | fcn_jax s | ratio | range of ratios |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for what in ("forward", "train step"):
    theirs, ours = ([run[what] for run in seconds[name]] for name in names)
    ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
    print(
      f"| {what} | {statistics.median(theirs):.3f} "
      f"| {statistics.median(ours):.3f} | {statistics.median(ratios):.2f} "
      f"| {min(ratios):.2f}-{max(ratios):.2f} |"
    )


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))

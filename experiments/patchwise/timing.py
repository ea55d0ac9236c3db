"""Time of patches against one pass over the picture, for the same outputs."""

import functools
import math
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

import fcn_jax as fcn


class Outputs(NamedTuple):
  """The outputs of a network whose receptive fields lie inside a picture.

  Output (i, j) is cell (first + i, first + j) of the score map, and the same
  as cell (first, first) of the patch with corner (stride i, stride j).

  Attributes:
    side: outputs along a side of the picture.
    stride: pixels between them.
    first: first cell that sees no padding.
    patch_size: side of a patch; the receptive field and the few pixels by
      which poolings on the patch and on the picture fall together.
    receptive_field: side in pixels of what an output sees.
  """

  side: int
  stride: int
  first: int
  patch_size: int
  receptive_field: int


def locate_outputs(model: fcn.models.Network, picture_size: int) -> Outputs:
  """Finds the outputs that see nothing but the picture.

  Raises:
    ValueError: if there are none.
  """
  layers = model.chain().score
  stride = int(fcn.geometry.grid(layers).stride)
  field = fcn.geometry.receptive_field(layers)
  start = fcn.geometry.receptive_field_start(layers)
  first = -(start // stride)
  patch_size = start + first * stride + field
  if picture_size < patch_size:
    raise ValueError(
      f"picture_size is {picture_size}; {model.backbone} sees {field} pixels, "
      f"so patches have {patch_size} pixels a side: give at least that."
    )
  side = (picture_size - patch_size) // stride + 1
  return Outputs(side, stride, first, patch_size, field)


def make_timed_model(config: Any, num_classes: int) -> fcn.models.FCN:
  """The network that is timed; without normalisation, as in the papers."""
  return fcn.models.FCN(
    num_classes, backbone=config.network.backbone, stride=32
  )


def loss_by_pass(model, outputs, params, picture, cells, labels):
  """Summed cross-entropy of the outputs `cells` [n, 2] from one pass."""
  score_map = model.apply({"params": params}, picture[None], train=False)
  rows, columns = outputs.first + cells.T
  scores = score_map.scores[0, rows, columns]
  return jnp.sum(fcn.losses.pixel_cross_entropy(scores, labels))


def loss_by_patches(model, outputs, params, picture, cells, labels):
  """The same loss from a patch for each output, in one batch."""
  (crops,) = fcn.patches.extract_patches(
    picture[None], outputs.stride * cells[None], (outputs.patch_size,) * 2
  )
  score_map = model.apply({"params": params}, crops, train=False)
  scores = score_map.scores[:, outputs.first, outputs.first]
  return jnp.sum(fcn.losses.pixel_cross_entropy(scores, labels))


# What is timed, made of a loss.
WORK = {
  "forward": lambda loss: loss,
  "forward and backward": jax.value_and_grad,
}


class Contestant:
  """One way to compute some outputs, and the times that it took.

  Attributes:
    seconds: of each run so far.
  """

  def __init__(self, function, params, picture, cells, labels, *, chunk):
    """Compiles a function that is given `chunk` outputs at a time."""
    self._function = function
    self._given = params, picture
    # A loop here, not in the function: XLA's loops are slow on a CPU.
    self._chunks = [
      (cells[start : start + chunk], labels[start : start + chunk])
      for start in range(0, len(cells), chunk)
    ]
    self._num_outputs = len(cells)
    self._temporary_bytes = temporary_bytes(
      function, *self._given, *self._chunks[0]
    )
    self._compute(self._chunks[:2])  # Warms up.
    self.seconds = []

  def run(self) -> Any:
    """Computes the sum over all outputs."""
    begin = time.perf_counter()
    total = self._compute(self._chunks)
    self.seconds.append(time.perf_counter() - begin)
    return total

  def _compute(self, chunks):
    parts = (self._function(*self._given, *chunk) for chunk in chunks)
    total = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
    return jax.block_until_ready(total)

  def figures(self) -> dict[str, Any]:
    """The figures for the report."""
    return {
      "outputs": self._num_outputs,
      "seconds": statistics.median(self.seconds),
      "temporary_bytes": self._temporary_bytes,
    }


def make_contestants(
  config: Any, num_classes: int
) -> dict[str, tuple[Contestant, list[Contestant]]]:
  """For each kind of work, the pass and the growing numbers of patches."""
  model = make_timed_model(config, num_classes)
  outputs = locate_outputs(model, config.picture_size)
  generator = np.random.default_rng(0)
  shape = (config.picture_size, config.picture_size, 3)
  picture = jnp.asarray(generator.integers(0, 256, shape, np.uint8))
  labels = generator.integers(0, num_classes, outputs.side**2, np.int32)
  # Not those of a new network, whose scores and most gradients are zero.
  params = jax.tree.map(
    lambda leaf: jnp.asarray(
      generator.normal(
        0, math.sqrt(2 / math.prod(leaf.shape[:-1])), leaf.shape
      ),
      leaf.dtype,
    ),
    jax.eval_shape(
      functools.partial(model.init, train=False),
      jax.random.key(0),
      picture[None],
    )["params"],
  )

  def contestant(function, num_outputs, chunk):
    # Evenly spread over the picture.
    chosen = np.arange(num_outputs) * outputs.side**2 // num_outputs
    cells = np.stack(np.divmod(chosen, outputs.side), axis=-1)
    given = params, picture, cells.astype(np.int32), labels[chosen]
    return Contestant(function, *given, chunk=chunk)

  contestants = {}
  for name, work in WORK.items():
    by_pass, by_patches = (
      jax.jit(work(functools.partial(loss, model, outputs)))
      for loss in (loss_by_pass, loss_by_patches)
    )
    most = config.num_outputs[-1]
    contestants[name] = (
      contestant(by_pass, most, most),
      [
        contestant(by_patches, count, min(count, config.patch_batch))
        for count in config.num_outputs
      ],
    )
  return contestants


def measure(config: Any, num_classes: int) -> dict[str, Any]:
  """Times patches against the one pass, in turn, in one process."""
  result = {}
  num_runs = len(WORK) * config.rounds * len(config.num_outputs)
  with tqdm.tqdm(total=num_runs, unit="timing", disable=None) as progress:
    progress.set_description("compiling")
    contestants = make_contestants(config, num_classes)
    for name, (one_pass, patches) in contestants.items():
      progress.set_description(name)
      for some_patches in config.rounds * patches:
        by_patches, by_pass = some_patches.run(), one_pass.run()
        progress.update()
      result[name] = {
        "one_pass": one_pass.figures(),
        "patches": [some_patches.figures() for some_patches in patches],
        # Both are of the same outputs: zero but for rounding.
        "relative_difference": relative_difference(by_patches, by_pass),
      }
  return result


def relative_difference(tree: Any, reference: Any) -> float:
  """Norm of the difference of two trees over the norm of the second."""
  difference = jax.tree.map(jnp.subtract, tree, reference)
  return float(optax.tree.norm(difference) / optax.tree.norm(reference))


def temporary_bytes(function: Any, *arguments: Any) -> int:
  """Memory that a jitted function needs besides arguments and results.

  Compiles the function for these arguments.
  """
  compiled = function.lower(*arguments).compile()
  return compiled.memory_analysis().temp_size_in_bytes

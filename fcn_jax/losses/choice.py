"""Which form of the loss is fastest, by kind of device."""

import functools
import math
from typing import Literal, NamedTuple

import jax

from fcn_jax import blocks
from fcn_jax import platforms
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.losses import forms
from fcn_jax.losses import rows

LossForm = Literal["auto", "logits", "strips", "blocks", "places", "pixels"]

# Chunks that stay in the cache of a CPU, or fill an accelerator.
_CPU = forms.Device(
  strip_bytes=0,
  band_bytes=2**20,
  block_bytes=2**20,
  pixel_bytes=2**21,
  blocks_by_product=True,
  gathers=True,
)
_TPU = forms.Device(
  strip_bytes=2**25,
  band_bytes=2**28,
  block_bytes=2**28,
  pixel_bytes=2**27,
  blocks_by_product=False,
  gathers=False,
)
_GPU = forms.Device(
  strip_bytes=2**28,
  band_bytes=2**30,
  block_bytes=2**28,
  pixel_bytes=2**27,
  # A product over 4 numbers has no fast kernel.
  blocks_by_product=False,
  gathers=True,
)


def compute(
  problem: forms.Problem,
  form: LossForm,
  score_map: types.ScoreMap,
  labels: jax.Array,
  key: jax.Array,
) -> tuple[forms.Sums, types.ScoreMap]:
  """The sums of the loss and their gradient.

  The form is chosen when the program is lowered, so that a program for another
  device than this process runs on is fast there.

  Args:
    problem: what to compute.
    form: the form; "auto" for the fastest.
    score_map: scores [N, h, w, C].
    labels: [N, H, W].
    key: random key.

  Raises:
    ValueError: if the form is "places" and the sampler does not repeat with the
      stride of the score map, or devices cannot share the rows of the images.
  """
  if form == "places":
    _check_places(problem.sampler, score_map)
  if problem.row_shards > 1:
    rows.check(score_map, problem.row_shards)

  def on(platform, device):
    chosen = form
    if form == "auto":
      chosen = fastest(platform, problem, score_map)
    return functools.partial(getattr(forms, chosen), problem, device)

  return platforms.dependent(
    score_map,
    labels,
    key,
    cpu=on("cpu", _CPU),
    tpu=on("tpu", _TPU),
    default=on("gpu", _GPU),
  )


def fastest(
  platform: Literal["cpu", "tpu", "gpu"],
  problem: forms.Problem,
  score_map: types.ScoreMap,
) -> LossForm:
  """The form that is fastest on a kind of device.

  Args:
    platform: the kind of device.
    problem: what to compute.
    score_map: scores [N, h, w, C].
  """
  if problem.row_shards > 1:
    # Other forms would collect the rows of all devices.
    return "strips"
  costs = _COSTS[platform](_Sizes.of(problem, score_map))
  return min(costs, key=costs.get)


class _Sizes(NamedTuple):
  """What the costs of the forms depend on; counts are those of an image."""

  num_images: int
  num_classes: int
  stride: int
  num_pixels: int
  num_blocks: int
  # None if the sampler does not state it.
  num_listed: int | None
  num_in_blocks: int
  num_places: int | None

  @classmethod
  def of(cls, problem: forms.Problem, score_map: types.ScoreMap) -> "_Sizes":
    stride = score_map.stride
    num_pixels = math.prod(score_map.image_size)
    num_blocks = math.prod(blocks.shape(score_map.grid, score_map.image_size))
    num_in_blocks = num_blocks
    if problem.sampler.blocks is not None:
      num_in_blocks = forms.num_blocks(problem, score_map)
    return cls(
      num_images=len(score_map.scores),
      num_classes=score_map.scores.shape[-1],
      stride=stride,
      num_pixels=num_pixels,
      num_blocks=num_blocks,
      num_listed=forms.num_pixels(problem, score_map),
      num_in_blocks=num_in_blocks * stride**2,
      num_places=_num_places(problem.sampler, stride),
    )


def _costs_on_cpu(sizes: _Sizes) -> dict[LossForm, float]:
  """Costs in units of one pixel of a block.

  Fitted to times on two cores: 21 and 150 classes at stride 8, and 21 classes
  at strides 1 to 32; see experiments.benchmarks.loss_head.
  """
  costs = {}
  if sizes.stride == 1:
    costs["logits"] = 13 * sizes.num_pixels
  else:
    # Rows of 16 pixels or fewer are slow.
    of_pixel = 2.5 if sizes.stride <= 4 else 1
    costs["blocks"] = 8 * sizes.num_blocks + of_pixel * sizes.num_in_blocks
  if sizes.num_listed is not None:
    of_pixel = 2.5 + 50 / sizes.num_classes
    costs["pixels"] = 5 * sizes.num_blocks + of_pixel * sizes.num_listed
  if sizes.num_places is not None:
    of_block = 8 + 1.4 * sizes.num_places
    # XLA's products with 1 or 3 rows are slow.
    slower = 1.5 if sizes.num_places in (1, 3) else 1.0
    costs["places"] = slower * of_block * sizes.num_blocks
  return costs


def _costs_on_tpu(sizes: _Sizes) -> dict[LossForm, float]:
  """Milliseconds for a TPU v5e, without gathers and scatters.

  From estimates of XLA's compiler for 16 images of 512x512 pixels, 21 and 150
  classes, stride 8: experiments.benchmarks.accelerators.
  """
  # Of so many classes of so many pixels.
  scale = sizes.num_images * sizes.num_pixels / (16 * 512**2)
  classes = sizes.num_classes * scale
  costs = {"strips": 0.12 * classes}
  kept = sizes.num_in_blocks / sizes.num_pixels
  # A gather and a scatter beside what is estimated.
  costs["blocks"] = 1.2 * (2 * scale + (0.089 + 0.126 * kept) * classes)
  if sizes.num_places is not None:
    # As strips, their mask is drawn for all pixels.
    costs["strips"] += scale
    costs["places"] = 0.2 * scale + (0.03 + 0.0065 * sizes.num_places) * classes
  return costs


# Logits that a GPU can hold beside a network.
_GPU_LOGITS_BYTES = 2**33


def _costs_on_gpu(sizes: _Sizes) -> dict[LossForm, float]:
  """Milliseconds for an H100: bytes to move, and launches.

  From programs that XLA compiled for it: experiments.benchmarks.accelerators.
  """
  num_bytes = 4 * sizes.num_images * sizes.num_pixels * sizes.num_classes

  def cost(passes, share, launches):
    return 1e3 * (passes * share * num_bytes / 3.35e12 + launches * 3e-6)

  costs = {"strips": cost(10, 1, 40)}
  if num_bytes <= _GPU_LOGITS_BYTES:
    costs["logits"] = cost(2.5, 1, 14)
  costs["blocks"] = cost(10, sizes.num_in_blocks / sizes.num_pixels, 40)
  if sizes.num_listed is not None:
    costs["pixels"] = cost(15, sizes.num_listed / sizes.num_pixels, 50)
  if sizes.num_places is not None:
    share = (2 + sizes.num_places) / sizes.stride**2
    costs["places"] = cost(4, share, 16)
  return costs


_COSTS = {"cpu": _costs_on_cpu, "tpu": _costs_on_tpu, "gpu": _costs_on_gpu}


def _num_places(sampler: sampling.Sampler, stride: int) -> int | None:
  """Places in each block; None if a sampler does not keep the same in all."""
  if sampler.places is None:
    return None
  chosen = jax.eval_shape(
    lambda key: sampler.places(key, 1, stride), jax.random.key(0)
  )
  return None if chosen is None else chosen.shape[1]


def _check_places(sampler, score_map):
  if _num_places(sampler, score_map.stride) is None:
    raise ValueError(
      'form is "places", but at this rate the sampler keeps less than one '
      f"pixel in a block of {score_map.stride}x{score_map.stride}: use another "
      'form, such as "auto", or a higher rate.'
    )

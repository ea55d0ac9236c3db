"""What the results show: each claim, and where its figures are read.

A folder of results has at least one claim here. A figure is named by a path of
keys into a JSON file of the folder; lists on the way are those of the seeds or
folds, whose mean and range are shown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.common import results

# Names, numbers of items of a list, or what the item of a list has.
Key = str | int | Mapping[str, Any]


class Figure(NamedTuple):
  """A figure of a claim.

  Attributes:
    label: what it is of.
    path: keys to it.
    digits: after the point.
    over: keys to what it is divided by.
    unit: written after the number.
    file: of the folder; the one with the summary if None.
  """

  label: str
  path: tuple[Key, ...]
  digits: int = 2
  over: tuple[Key, ...] | None = None
  unit: str = ""
  file: str | None = None

  def cell(self, figures: Any) -> str:
    """The figure, read from the content of its file.

    Raises:
      LookupError: if it is not there.
    """
    values = _flat(at(figures, self.path))
    if self.over is not None:
      below = _flat(at(figures, self.over))
      values = [a / b for a, b in zip(values, below, strict=True)]
    return f"{self.label}: {results.spread(values, self.digits)}{self.unit}"


class Claim(NamedTuple):
  """A sentence, and the figures of a folder that it stands on.

  Attributes:
    sentence: the claim, with the unit in brackets.
    folder: of experiments/results.
    figures: what it stands on.
    is_of_time: whether the figures are times, which are right where the
      trained networks are not.
  """

  sentence: str
  folder: str
  figures: tuple[Figure, ...]
  is_of_time: bool = False


def at(figures: Any, path: tuple[Key, ...]) -> Any:
  """What is at the end of a path of keys; of each item of a list.

  Raises:
    LookupError: if it is not there.
  """
  for number, key in enumerate(path):
    if isinstance(figures, list) and isinstance(key, str):
      return [at(one, path[number:]) for one in figures]
    try:
      if isinstance(key, Mapping):
        key = next(
          i for i, one in enumerate(figures) if key.items() <= one.items()
        )
      figures = figures[key]
    except (LookupError, TypeError, StopIteration) as error:
      raise LookupError(f"{path[number]!r} of {path}") from error
  return figures


def _flat(values: Any) -> list[float]:
  return values if isinstance(values, list) else [values]


def _mean_iu(label: str, variant: str) -> Figure:
  return Figure(label, ("variants", variant, "scores", "mean_iu"), 3)


def _seconds(label: str, variant: str) -> Figure:
  return Figure(label, ("variants", variant, "seconds"), 0, unit=" s")


def _class_iu(label: str, variant: str, name: str) -> Figure:
  return Figure(label, ("variants", variant, "scores", "class_iu", name), 2)


_RATES = {"p = 1": "p=1", "p = 1/2": "p=0.5", "p = 1/4": "p=0.25"}
_RATES_OF_BOTH = {
  "p = 1": "p=1",
  "blocks, 1/4": "blocks, p=0.25",
  "places, 1/4": "places, p=0.25",
  "blocks, 1/16": "blocks, p=0.0625",
  "places, 1/16": "places, p=0.0625",
}


def _sampling_rates(
  folder: str, data: str, variants: Mapping[str, str] = _RATES
) -> list[Claim]:
  return [
    Claim(
      f"{data}: after as many steps, sampling with 1 / p times the images ends "
      "a little better than whole images. (mean IU)",
      folder,
      tuple(_mean_iu(label, name) for label, name in variants.items()),
    ),
    Claim(
      f"{data}: it takes the time of more images. (seconds of training)",
      folder,
      tuple(_seconds(label, name) for label, name in variants.items()),
      is_of_time=True,
    ),
    Claim(
      f"{data}: explicit patches with as many pixels are no better than whole "
      "images. (mean IU)",
      folder,
      (_mean_iu("patches", "patches"), _mean_iu("whole images", "p=1")),
    ),
  ]


def _patches(folder: str, data: str) -> list[Claim]:
  passes = {"forward": "forward", "with the gradient": "forward and backward"}
  return [
    Claim(
      f"{data}: one pass over a picture of 512x512, with 100 outputs, takes as "
      "long as the patches of a few of them. (outputs)",
      folder,
      tuple(
        Figure(label, ("break_even", name, "outputs"), 1)
        for label, name in passes.items()
      ),
      is_of_time=True,
    ),
    Claim(
      f"{data}: for all 100 outputs, one pass is faster than patches. (times)",
      folder,
      tuple(
        Figure(
          label,
          ("timing", name, "patches", -1, "seconds"),
          0,
          over=("timing", name, "one_pass", "seconds"),
        )
        for label, name in passes.items()
      ),
      is_of_time=True,
    ),
    Claim(
      f"{data}: small patches train no better than whole images with as many "
      "pixels. (mean IU after 100 steps)",
      folder,
      tuple(
        _mean_iu(name, name)
        for name in (
          "whole images",
          "p=0.25",
          "balanced patches",
          "random patches",
          "grid patches",
        )
      ),
    ),
  ]


def _noise(folder: str, data: str) -> list[Claim]:
  after = ("measured", "200")
  measured = (*after, "seeds")

  def variance(label, sampler, rate, comparison):
    chosen = {"sampler": sampler, "rate": rate}
    return Figure(label, (*after, "rates_compared", chosen, comparison))

  return [
    Claim(
      f"{data}: neighbouring pixels of an image are alike. (correlation of the "
      "gradients of two pixels after 200 steps)",
      folder,
      tuple(
        Figure(
          f"at a distance of {distance}", (*measured, "correlation", distance)
        )
        for distance in (1, 8, 32)
      ),
    ),
    Claim(
      f"{data}: an image counts as few independent pixels. (after 200 steps)",
      folder,
      (
        Figure("pixels", (*measured, "pixels"), 0),
        Figure("independent", (*measured, "independent_pixels"), 1),
      ),
    ),
    Claim(
      f"{data}: spread pixels can be left out of the loss, blocks less so. "
      "(variance of the gradient relative to as many whole images, after 200 "
      "steps, 1 in 20 pixels kept)",
      folder,
      tuple(
        variance(label, sampler, 0.05, "images")
        for label, sampler in {
          "places": "places",
          "single pixels": "pixels",
          "blocks": "blocks",
        }.items()
      ),
    ),
    Claim(
      f"{data}: in the same time, sampling places changes the variance of the "
      "gradient by little, blocks by more. (relative to whole images, after "
      "200 steps)",
      folder,
      tuple(
        variance(f"{sampler} at {rate:g}", sampler, rate, "time")
        for sampler in ("places", "blocks")
        for rate in (0.25, 0.05)
      ),
    ),
  ]


def _membranes() -> list[Claim]:
  samples = (
    "crops",
    "crops, short",
    "whole images",
    "blocks, p=0.25",
    "places, p=0.25",
    "uncertain",
  )

  def of_ways(ways, score, digits, unit=""):
    return tuple(
      Figure(way, ("variants", way, score), digits, unit=unit) for way in ways
    )

  return [
    Claim(
      "Membranes: crops, whole images and samples of them reach the best error "
      "of patches around single pixels in a small part of their time. (seconds "
      "of training until then)",
      "membranes",
      of_ways(
        ("patches, balanced", *samples), "seconds_to_error_of_patches", 1, " s"
      ),
      is_of_time=True,
    ),
    Claim(
      "Membranes: they end with fewer wrong pixels. (share of the pixels of "
      "held-out slices)",
      "membranes",
      of_ways(
        ("patches, balanced", "patches, random", *samples), "pixel_error", 3
      ),
    ),
    Claim(
      "Membranes: in all folds and seeds, crops with a quarter of their pixels "
      "in the loss end with fewer wrong pixels than patches, in a fifth of the "
      "time. (share of the pixels of held-out slices; seconds of training)",
      "membranes_folds",
      (
        *of_ways(("patches, balanced", "places, p=0.25"), "pixel_error", 3),
        *of_ways(("patches, balanced", "places, p=0.25"), "seconds", 0, " s"),
      ),
    ),
    Claim(
      "Membranes: they reach the best error of the patches of their fold and "
      "seed in 1/8 to 1/32 of its time. (part of the time)",
      "membranes_folds",
      (
        Figure(
          "places, p=0.25",
          ("variants", "places, p=0.25", "seconds_to_error_of_patches"),
          3,
          over=("seconds_of_patches",),
        ),
      ),
      is_of_time=True,
    ),
    Claim(
      "Membranes: trained for a twentieth of the time of patches, crops end "
      "with about as many wrong pixels. (share of the pixels of held-out "
      "slices; seconds of training)",
      "membranes_folds",
      (
        *of_ways(("patches, balanced", "crops, short"), "pixel_error", 3),
        *of_ways(("patches, balanced", "crops, short"), "seconds", 0, " s"),
      ),
    ),
    Claim(
      "Membranes: after thirteen minutes of training, the Rand score is above "
      "0.92 in every fifth of the stack. (held-out slices of five folds)",
      "membranes_best",
      (
        Figure("Rand", ("variants", "best", "rand"), 3),
        Figure("AUC", ("variants", "best", "roc_auc"), 3),
        Figure("wrong pixels", ("variants", "best", "pixel_error"), 3),
      ),
    ),
  ]


CLAIMS = [
  *_sampling_rates("demo", "Shapes"),
  *_sampling_rates("camvid_small", "CamVid"),
  *_sampling_rates(
    "camvid_vgg16", "CamVid, VGG16 from ImageNet", _RATES_OF_BOTH
  ),
  Claim(
    "Shapes: of the same images, 1 in 20 pixels, evenly spread, trains as well "
    "as all of them; 1 in 20 blocks does not. (mean IU)",
    "same_images_shapes",
    tuple(
      _mean_iu(name, name)
      for name in (
        "p=1",
        "places, p=0.25",
        "places, p=0.05",
        "blocks, p=0.25",
        "blocks, p=0.05",
      )
    ),
  ),
  *_patches("patchwise_shapes", "Shapes"),
  *_patches("patchwise_camvid", "CamVid"),
  *_noise("gradient_noise_shapes", "Shapes"),
  *_noise("gradient_noise_camvid", "CamVid"),
  *_noise("gradient_noise_camvid_vgg16", "CamVid, VGG16 from ImageNet"),
  Claim(
    "Shapes: some losses and samples find the rarest class, plain training "
    "does not. (IU of the star)",
    "class_balance_shapes",
    tuple(
      _class_iu(name, name, "star")
      for name in (
        "plain",
        "class weights",
        "balanced pixels",
        "hard pixels",
        "uncertain pixels",
        "focal",
        "with Dice",
        "with Tversky",
        "with Lovasz",
        "forced crops",
      )
    ),
  ),
  Claim(
    "Shapes: Lovasz-softmax and hard pixels do so at little or no cost to the "
    "other classes, weights and balanced pixels take from them. (mean IU)",
    "class_balance_shapes",
    tuple(
      _mean_iu(name, name)
      for name in (
        "plain",
        "with Lovasz",
        "hard pixels",
        "balanced pixels",
        "class weights",
      )
    ),
  ),
  Claim(
    "CamVid: balanced pixels have a better mean IU than plain training, with a "
    "part of the pixels in the loss. (mean IU, and pixels in the loss of a "
    "step)",
    "class_balance_camvid",
    (
      _mean_iu("plain", "plain"),
      _mean_iu("balanced pixels", "balanced pixels"),
      Figure("plain", ("variants", "plain", "loss_pixels_per_step"), 0),
      Figure(
        "balanced", ("variants", "balanced pixels", "loss_pixels_per_step"), 0
      ),
    ),
  ),
  Claim(
    "Waves: fine strides find thin lines. (IU of lines of one to three pixels)",
    "thin_lines",
    tuple(
      Figure(f"stride {stride}", ("iu_of_lines", str(stride)), 3)
      for stride in (8, 4, 2, 1)
    ),
  ),
  *_membranes(),
  Claim(
    "CamVid: the small network learns it from scratch. (mean IU on the test "
    "pictures at native size)",
    "camvid_train",
    tuple(
      Figure(label, ("mean_iu",), 3, file=file)
      for label, file in {
        "best by validation": "test_best.json",
        "last": "test_latest.json",
        "best, three scales and mirrored": "test_best_averaged.json",
      }.items()
    ),
  ),
  Claim(
    "CamVid: median-frequency weights raise the mean accuracy and cost global "
    "accuracy; after a short training they cost mean IU, too, on the test "
    "pictures. (at native size)",
    "camvid_class_weights",
    tuple(
      Figure(f"{score}, {weights}", (key,), 3, file=f"test_{weights}.json")
      for score, key in {
        "global accuracy": "pixel_accuracy",
        "mean accuracy": "mean_accuracy",
        "mean IU": "mean_iu",
      }.items()
      for weights in ("natural", "median")
    ),
  ),
  Claim(
    "CamVid: a VGG16 from ImageNet learns it better. (mean IU on the test "
    "pictures at native size)",
    "camvid_pretrained",
    (Figure("after 2,000 steps", ("mean_iu",), 3, file="test_best.json"),),
  ),
]

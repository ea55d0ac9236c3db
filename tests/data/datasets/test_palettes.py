"""Colours of classes that have none of their own."""

import numpy as np
import pytest
from skimage import color

from fcn_jax import visualize
from fcn_jax.data.datasets import palettes

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation
# of Color Vision Deficiency" (2009): linear RGB at severity 1.
SIGHTS = {
  "all cones": np.eye(3),
  "protanopia": np.array(
    [
      [0.152286, 1.052583, -0.204868],
      [0.114503, 0.786281, 0.099216],
      [-0.003882, -0.048116, 1.051998],
    ]
  ),
  "deuteranopia": np.array(
    [
      [0.367322, 0.860646, -0.227968],
      [0.280085, 0.672501, 0.047413],
      [-0.011820, 0.042940, 0.968881],
    ]
  ),
}


def smallest_difference(colors, matrix):
  """The smallest CIEDE2000 difference of two of some colours."""
  values = np.asarray(colors) / 255
  # sRGB: IEC 61966-2-1.
  linear = np.where(
    values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
  )
  seen = np.clip(linear @ matrix.T, 0, 1)
  seen = np.where(
    seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055
  )
  lab = color.rgb2lab(seen[None])[0]
  differences = color.deltaE_ciede2000(lab[:, None], lab[None])
  return np.min(differences[~np.eye(len(lab), dtype=bool)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_people_with_colour_blindness_tell_twelve_classes_and_void_apart(sight):
  colors = [*palettes.distinct_palette(num_classes=12), visualize.VOID_COLOR]
  assert smallest_difference(colors, SIGHTS[sight]) > 10
  # What this replaces: two of its colours look almost the same.
  before = palettes.voc_palette(num_classes=12)
  assert smallest_difference(before, SIGHTS["deuteranopia"]) < 3


@pytest.mark.parametrize("num_classes", [1, 12, 256])
def test_every_class_has_a_colour_of_its_own(num_classes):
  colors = palettes.distinct_palette(num_classes=num_classes)
  assert len(colors) == len({*colors}) == num_classes

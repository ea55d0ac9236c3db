import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from fcn_jax import types
from fcn_jax import visualize

VOID = types.IGNORE_LABEL
PALETTE = np.array([[0, 0, 0], [255, 0, 10], [20, 200, 30]], np.uint8)
LABELS = np.array([[0, 1, 2], [VOID, 2, 1]], np.int32)


def test_every_class_is_painted_in_its_colour():
  colors = visualize.colorize(LABELS, PALETTE)
  assert (colors.shape, colors.dtype) == ((2, 3, 3), np.uint8)
  for index in np.ndindex(LABELS.shape):
    label = LABELS[index]
    expected = visualize.VOID_COLOR if label == VOID else PALETTE[label]
    assert tuple(colors[index]) == tuple(expected)


def test_void_keeps_its_colour_under_a_full_palette():
  palette = np.zeros((256, 3), np.uint8)
  colors = visualize.colorize(np.array([VOID]), palette)
  assert tuple(colors[0]) == visualize.VOID_COLOR


@pytest.mark.parametrize("opacity", [0.0, 0.25, 1.0])
def test_an_overlay_mixes_colours_and_leaves_void_alone(opacity):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 3, 3)).astype(np.uint8)
  mixed = visualize.overlay(image, LABELS, PALETTE, opacity)
  assert mixed.dtype == np.uint8
  for index in np.ndindex(LABELS.shape):
    expected = image[index].astype(float)
    if LABELS[index] != VOID:
      expected += opacity * (PALETTE[LABELS[index]] - expected)
    np.testing.assert_allclose(mixed[index], expected, atol=0.5)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_loss_curves_are_written_as_a_picture(tmp_path, num_seeds):
  steps = np.arange(1, 6)
  curves = visualize.Curves(
    iterations=steps,
    images=4 * steps,
    seconds=np.tile(0.1 * steps, (num_seeds, 1)),
    losses=np.random.default_rng(0).random((num_seeds, 5)),
  )
  path = tmp_path / "figure5.png"
  visualize.loss_curves(path, {"full": curves, "50 %": curves}, "a net")
  with PIL.Image.open(path) as picture:
    assert (picture.format, picture.size) == ("PNG", (1080, 360))
    assert len(np.unique(np.asarray(picture))) > 10


@pytest.mark.parametrize("num_rows", [1, 2])
def test_predictions_are_written_as_a_picture_in_class_colours(
  tmp_path, num_rows
):
  columns = {
    "image": [np.full((20, 30, 3), 99, np.uint8)] * num_rows,
    "truth": [np.full((20, 30), 2)] * num_rows,
    "full": [np.full((20, 30), 1)] * num_rows,
  }
  path = tmp_path / "predictions.png"
  names = ["sky", "road", "tree"]
  visualize.predictions(path, columns, names, PALETTE)
  with PIL.Image.open(path) as picture:
    assert picture.format == "PNG"
    # Columns of 1.7 inches, rows as high as pictures of 30 x 20 are then.
    width, row_height, legend = 72 * 3 * 1.7, 72 * 1.7 * 20 / 30, 72 * 0.8
    height = num_rows * row_height + legend
    np.testing.assert_allclose(picture.size, (width, height), atol=1)
    pixels = np.asarray(picture.convert("RGB"))
  thirds = np.array_split(pixels[: int(num_rows * row_height)], 3, axis=1)
  for third, color in zip(
    thirds, ((99, 99, 99), PALETTE[2], PALETTE[1]), strict=True
  ):
    assert np.all(third == np.asarray(color), axis=-1).mean() > 0.1


def test_figures_need_no_pyplot():
  code = "\n".join(
    [
      "import sys",
      "from fcn_jax import visualize",
      "assert 'matplotlib.pyplot' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True)

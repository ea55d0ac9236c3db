import io
import subprocess
import sys

import matplotlib.figure
import matplotlib.text
import numpy as np
import PIL.Image
import PIL.ImageDraw
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
  mixed = visualize.overlay(image, LABELS, PALETTE, opacity, contours=False)
  assert mixed.dtype == np.uint8
  for index in np.ndindex(LABELS.shape):
    expected = image[index].astype(float)
    if LABELS[index] != VOID:
      expected += opacity * (PALETTE[LABELS[index]] - expected)
    np.testing.assert_allclose(mixed[index], expected, atol=0.5)


@pytest.mark.parametrize("value", [10, 250])
def test_contours_show_on_dark_and_on_light_images(value):
  image = np.full((9, 9, 3), value, np.uint8)
  labels = np.zeros((9, 9), np.int32)
  labels[3:6, 3:6] = 1
  painted = visualize.overlay(image, labels, PALETTE, background=0).astype(int)
  brightness = painted.mean(axis=-1)
  # The edge of the object is light, and a dark one is around it.
  ring = np.ones((3, 3), bool)
  ring[1, 1] = False
  assert brightness[3:6, 3:6][ring].min() > 170
  around = [brightness[2, 3:6], brightness[6, 3:6], brightness[3:6, 2]]
  assert np.max(around) < 80
  # Inside, the object has the colour of its class.
  np.testing.assert_allclose(
    painted[4, 4], (value + PALETTE[1].astype(int)) / 2, atol=1
  )


def test_the_background_is_not_painted():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 3, 3)).astype(np.uint8)
  names = ["road", "Background", "tree"]
  background = visualize.background_of(names)
  mixed = visualize.overlay(
    image, LABELS, PALETTE, background=background, contours=False
  )
  bare = (LABELS == 1) | (LABELS == VOID)
  np.testing.assert_array_equal(mixed[bare], image[bare])
  assert np.all(np.any(mixed[~bare] != image[~bare], axis=-1))
  assert visualize.background_of(["road", "tree"]) is None


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
  visualize.loss_curves({"full": curves, "50 %": curves}, "a net", path=path)
  with PIL.Image.open(path) as picture:
    assert (picture.format, picture.size) == ("PNG", (1800, 600))
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
  visualize.predictions(columns, names, PALETTE, path=path)
  with PIL.Image.open(path) as picture:
    assert picture.format == "PNG"
    # Columns of 1.7 inches, rows as high as pictures of 30 x 20 are then.
    inch = 150
    width, row_height = inch * 3 * 1.7, inch * 1.7 * 20 / 30
    legend = inch * 0.8
    height = num_rows * row_height + legend
    np.testing.assert_allclose(picture.size, (width, height), atol=1)
    pixels = np.asarray(picture.convert("RGB"))
  thirds = np.array_split(pixels[: int(num_rows * row_height)], 3, axis=1)
  for third, color in zip(
    thirds, ((99, 99, 99), PALETTE[2], PALETTE[1]), strict=True
  ):
    assert np.all(third == np.asarray(color), axis=-1).mean() > 0.1


def test_rows_of_predictions_have_titles_and_room_for_them(tmp_path):
  columns = {"truth": [np.full((20, 30), 2)] * 3}
  sizes, darkness = [], []
  for titles in ((), ("one 0.50", "two 0.25", "three 0.12")):
    path = tmp_path / "predictions.png"
    visualize.predictions(
      columns, ["a", "b", "c"], PALETTE, row_titles=titles, path=path
    )
    with PIL.Image.open(path) as picture:
      sizes.append(picture.height)
      darkness.append(np.sum(np.asarray(picture.convert("L")) < 100))
  assert sizes[1] - sizes[0] == pytest.approx(150 * 0.2 * 3, abs=1)
  assert darkness[1] > darkness[0] + 50


def test_errors_are_red_where_the_truth_is_known():
  painted = visualize.errors(
    np.array([1, 1, VOID, VOID]), np.array([1, 2, 2, VOID])
  )
  right, wrong, void, other = painted.tolist()
  assert void == other == list(visualize.VOID_COLOR)
  assert len(set(right)) == 1 and wrong[0] > 2 * wrong[1]
  assert painted.dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 21, 150])
def test_a_confusion_matrix_is_a_small_picture_of_itself(tmp_path, num_classes):
  names = [f"class {i}" for i in range(num_classes)]
  rng = np.random.default_rng(0)
  confusion = rng.integers(0, 9, (num_classes,) * 2)
  confusion += np.diag(rng.integers(500, 9000, num_classes))
  confusion[0] = 0  # No true pixel: grey.
  path = tmp_path / "confusion.png"
  visualize.confusion_matrix(confusion, names, path=path)
  assert path.stat().st_size < 200_000
  image = visualize.confusion_matrix_image(confusion, names)
  assert image.dtype == np.uint8 and image.shape[2] == 3
  with PIL.Image.open(path) as picture:
    assert picture.format == "PNG"
    written = np.asarray(picture.convert("RGB")).astype(int)
  assert written.shape == image.shape
  assert np.abs(written - image).mean() < 2
  # The diagonal is darker than what is beside it.
  blue = image[..., 2].astype(int) - image[..., 0] > 100
  # All cells of it but the first: at least 7 x 7 pixels each, 30 x 30 of few.
  side = 7 if num_classes > 100 else 30
  assert blue.sum() > (num_classes - 1) * side**2
  assert np.all(image == 211, axis=-1).sum() > 500


def test_the_confusion_picture_shows_rows_as_true_classes():
  image = visualize.confusion_matrix_image([[0, 5], [0, 5]], ["a", "b"])
  dark = image[..., 2].astype(int) - image[..., 0] > 60
  columns = np.flatnonzero(
    dark[:, : int(0.8 * image.shape[1])].sum(axis=0) > 99
  )
  rows = np.flatnonzero(dark[:, columns].sum(axis=1))
  # All was called b, so the right column is dark from top to bottom.
  assert np.ptp(rows) > 1.8 * np.ptp(columns)


TRAINING = [
  {
    "kind": "train",
    "step": 10 * step,
    "loss": 2.0 / step,
    "learning_rate": 1e-3,
    "gradient_norm": 0.5,
  }
  for step in range(1, 301)
]
EVALUATIONS = [
  {"kind": "evaluation", "step": 1000, "mean_iu": 0.5, "pixel_accuracy": 0.8},
  {"kind": "evaluation", "step": 2000, "mean_iu": 0.7, "pixel_accuracy": 0.9},
  {"kind": "evaluation", "step": 3000, "mean_iu": None, "pixel_accuracy": None},
]


@pytest.mark.parametrize(
  ("training", "evaluations"),
  [
    (TRAINING, EVALUATIONS),
    (TRAINING[:3], EVALUATIONS[2:]),
    ([{**TRAINING[0], "loss": None, "gradient_norm": 0.0}], []),
    ([], []),
  ],
)
def test_training_curves_are_written_for_any_length(
  tmp_path, training, evaluations
):
  path = tmp_path / "curves.png"
  visualize.training_curves(training, evaluations, title="a net", path=path)
  with PIL.Image.open(path) as picture:
    assert (picture.format, picture.size) == ("PNG", (1650, 975))


def test_training_curves_mark_the_best_step_and_take_the_last_of_a_step():
  again = {**TRAINING[1], "loss": 7.0}
  figure = visualize.training_curves([*TRAINING[:3], again], EVALUATIONS)
  loss, scores, *_ = figure.axes
  np.testing.assert_allclose(
    loss.lines[0].get_xydata(), [(10, 2.0), (20, 7.0), (30, 2.0 / 3)]
  )
  assert loss.get_yscale() == "log"
  figure.canvas.draw()
  ticks = [text.get_text() for text in loss.get_yticklabels()]
  assert {"1", "2"} <= {*ticks}, ticks
  # The curves fill the axes.
  low, high = scores.get_ylim()
  assert 40 < low < 50 and 90 < high < 95
  legend = [text.get_text() for text in scores.get_legend().get_texts()]
  assert legend[-1] == "best: 70.0 at step 2000"


def test_a_labelled_overlay_is_the_overlay_with_a_legend_below(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (40, 300, 3), np.uint8)
  classes = np.zeros((40, 300), np.uint8)
  classes[:10], classes[30:] = 1, VOID
  path = tmp_path / "overlay.png"
  names = ["sky", "road", "tree"]
  visualize.labelled_overlay(image, classes, names, PALETTE, path=path)
  with PIL.Image.open(path) as picture:
    pixels = np.asarray(picture)
  assert pixels.shape[1] == 300 and pixels.shape[0] > 40
  np.testing.assert_array_equal(
    pixels[:40], visualize.overlay(image, classes, PALETTE)
  )
  colors = {tuple(color) for color in pixels[40:].reshape(-1, 3).tolist()}
  # Of classes that are not there, the legend says nothing.
  assert tuple(PALETTE[1].tolist()) in colors
  assert tuple(PALETTE[2].tolist()) not in colors


def test_the_legend_says_shares_and_void(monkeypatch):
  texts = []
  draw = PIL.ImageDraw.ImageDraw.text

  def keep(self, xy, text, *arguments, **options):
    texts.append(text)
    return draw(self, xy, text, *arguments, **options)

  monkeypatch.setattr(PIL.ImageDraw.ImageDraw, "text", keep)
  classes = np.array([[0, 0, 0, 0, 2, VOID, VOID, 2]] * 2, np.int32)
  visualize.labelled_overlay(
    np.zeros((2, 8, 3), np.uint8), classes, ["sky", "road", "tree"], PALETTE
  )
  assert texts == ["sky: 50.0 %", "tree: 25.0 %", "void: 25.0 %"]


def test_a_large_overlay_is_drawn_smaller(tmp_path):
  image = np.full((10, 5001, 3), 100, np.uint8)
  classes = np.ones((10, 5001), np.uint8)
  path = tmp_path / "overlay.jpg"
  visualize.labelled_overlay(
    image, classes, ["a", "b", "c"], PALETTE, path=path
  )
  with PIL.Image.open(path) as picture:
    assert (picture.format, picture.width) == ("JPEG", 1667)


@pytest.mark.slow
def test_figures_need_no_pyplot():
  code = "\n".join(
    [
      "import sys",
      "from fcn_jax import visualize",
      "assert 'matplotlib.pyplot' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reliability_diagram_shows_accuracies_and_shares(tmp_path):
  # Bins without pixels, too.
  counts = np.array([[0, 40, 0, 60], [0, 10, 0, 60], [0, 16, 0, 54]], float)
  path = tmp_path / "reliability.png"
  visualize.reliability(counts, path=path)
  full = np.asarray(PIL.Image.open(path).convert("RGB"))
  assert full.shape == (900, 750, 3)
  visualize.reliability(np.zeros((3, 4)), path=path)
  empty = np.asarray(PIL.Image.open(path).convert("RGB"))
  # The bars of 25 %, 100 %, 40 % and 60 % are blue.
  blue = matplotlib.colors.to_rgb("tab:blue")
  is_blue = (full == np.round(255 * np.array(blue)).astype(int)).all(axis=-1)
  assert is_blue.mean() > 0.05
  assert (full != empty).any()


def test_drawings_are_returned_and_show_themselves_without_a_file(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  names = ["a", "b", "c"]
  table = visualize.predictions({"truth": [LABELS]}, names, PALETTE)
  overlay = visualize.labelled_overlay(
    np.zeros((2, 3, 3), np.uint8), LABELS, names, PALETTE
  )
  for drawing in (table, overlay):
    # What a notebook shows as the result of a cell.
    with PIL.Image.open(io.BytesIO(drawing._repr_png_())) as picture:
      assert len(np.unique(np.asarray(picture))) > 3
  assert not list(tmp_path.iterdir())


ODD_NAMES = ("$x", "$\\frac$", "\x1b[31m\n\ud800<b>" + 100_000 * "n")


def texts_of(figure):
  figure.canvas.draw()
  texts = [text for text in figure.findobj(matplotlib.text.Text)]
  return [text.get_text() for text in texts]


def test_odd_names_are_no_formulas_in_figures(tmp_path):
  picture = np.zeros((8, 8, 3), np.uint8)
  figure = visualize.predictions(
    {"image": [picture], "labels": [LABELS]},
    ODD_NAMES,
    PALETTE,
    row_titles=[ODD_NAMES[2]],
    path=tmp_path / "predictions.png",
  )
  texts = texts_of(figure)
  assert {r"\$x", r"\$\frac\$"} <= {*texts}
  shown = r"\x1b[31m\n\ud800<b>"
  assert [text for text in texts if text.startswith(shown)]
  assert max(map(len, texts)) < 150
  visualize.confusion_matrix(
    np.eye(3), ODD_NAMES, path=tmp_path / "confusion.png"
  )
  visualize.labelled_overlay(picture[:2, :3], LABELS, ODD_NAMES, PALETTE)

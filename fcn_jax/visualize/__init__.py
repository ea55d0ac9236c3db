"""Draws labels, predictions, scores and the course of training.

- `colorize`, `overlay` and `errors` paint labels, as arrays; void has
  `VOID_COLOR`.
- `predictions` and `labelled_overlay` draw pictures with a legend.
- `confusion_matrix` (as an array: `confusion_matrix_image`), `loss_curves` (of
  `Curves`), `training_curves` and `reliability` draw numbers.

What is drawn is returned, as a Matplotlib figure or a Pillow image, and a
notebook shows it. It is written to a file only if you give a `path`. Figures
are drawn without pyplot, so nothing here opens a window, keeps a figure alive
or changes the settings of a notebook.
"""

from fcn_jax.visualize.calibration import reliability
from fcn_jax.visualize.confusion import confusion_matrix
from fcn_jax.visualize.confusion import confusion_matrix_image
from fcn_jax.visualize.curves import Curves
from fcn_jax.visualize.curves import loss_curves
from fcn_jax.visualize.curves import training_curves
from fcn_jax.visualize.painting import VOID_COLOR
from fcn_jax.visualize.painting import background_of
from fcn_jax.visualize.painting import colorize
from fcn_jax.visualize.painting import errors
from fcn_jax.visualize.painting import overlay
from fcn_jax.visualize.pictures import labelled_overlay
from fcn_jax.visualize.pictures import predictions

__all__ = [
  "VOID_COLOR",
  "Curves",
  "background_of",
  "colorize",
  "confusion_matrix",
  "confusion_matrix_image",
  "errors",
  "labelled_overlay",
  "loss_curves",
  "overlay",
  "predictions",
  "reliability",
  "training_curves",
]

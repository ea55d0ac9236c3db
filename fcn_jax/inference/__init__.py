"""Prediction with a trained network.

    classes = inference.predict(model, variables, images)
    classes = inference.predict_tiled(model, variables, picture_of_any_size)

The first takes a batch, the second one picture of any size, also averaged over
scales and flips.
"""

from fcn_jax.inference import averaging
from fcn_jax.inference import exported
from fcn_jax.inference import exporting
from fcn_jax.inference import prediction
from fcn_jax.inference import tiles
from fcn_jax.inference import tiling
from fcn_jax.inference import tiling_plan
from fcn_jax.inference import views
from fcn_jax.inference.averaging import probabilities
from fcn_jax.inference.exported import load as load_exported
from fcn_jax.inference.exporting import export
from fcn_jax.inference.prediction import predict
from fcn_jax.inference.tiling import disagreement
from fcn_jax.inference.tiling import exact_margin
from fcn_jax.inference.tiling import predict_tiled

__all__ = [
  "averaging",
  "views",
  "disagreement",
  "exact_margin",
  "export",
  "exported",
  "exporting",
  "load_exported",
  "tiling_plan",
  "predict",
  "predict_tiled",
  "prediction",
  "probabilities",
  "tiling",
  "tiles",
]

"""Prediction with a trained network.

    classes = inference.predict(model, variables, images)
    classes = inference.predict_tiled(model, variables, picture_of_any_size)

The first takes a batch, the second one picture of any size, also averaged over
scales and flips.
"""

from fcn_jax.inference import averaging
from fcn_jax.inference import copies
from fcn_jax.inference import exported
from fcn_jax.inference import exporting
from fcn_jax.inference import plans
from fcn_jax.inference import prediction
from fcn_jax.inference import tiled
from fcn_jax.inference import tiles
from fcn_jax.inference.averaging import probabilities
from fcn_jax.inference.exported import load as load_exported
from fcn_jax.inference.exporting import export
from fcn_jax.inference.prediction import predict
from fcn_jax.inference.tiled import disagreement
from fcn_jax.inference.tiled import exact_margin
from fcn_jax.inference.tiled import predict_tiled

__all__ = [
  "averaging",
  "copies",
  "disagreement",
  "exact_margin",
  "export",
  "exported",
  "exporting",
  "load_exported",
  "plans",
  "predict",
  "predict_tiled",
  "prediction",
  "probabilities",
  "tiled",
  "tiles",
]

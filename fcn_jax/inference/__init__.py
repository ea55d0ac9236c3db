"""Prediction with a trained network."""

from fcn_jax.inference import prediction
from fcn_jax.inference.prediction import predict

__all__ = [
  "predict",
  "prediction",
]

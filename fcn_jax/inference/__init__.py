"""Prediction with a trained network.

    classes = inference.predict(model, variables, images)
    classes = inference.predict_tiled(model, variables, picture_of_any_size)

- `predict` takes a batch. `predict_tiled` takes one picture of any size and
  cuts it into tiles; it can also average over scales, flips and turns.
  `probabilities` returns the probabilities of the classes instead.
  With blending it averages tiles that overlap, see `blending`.
  `choose_buckets` keeps pictures of many sizes to a few compiled programs, see
  `buckets`.
- `exact_margin` says how far a network sees around a tile, and `disagreement`
  what a smaller margin costs. `tiling_plan` cuts a picture into tiles.
- `export` writes a network to a file that runs without this package, and
  `load_exported` reads it; see `exporting` and `exported`. `export_onnx` writes
  an ONNX file.
"""

from fcn_jax.inference import blending
from fcn_jax.inference import buckets
from fcn_jax.inference import exported
from fcn_jax.inference import exporting
from fcn_jax.inference import onnx_files
from fcn_jax.inference import tiling
from fcn_jax.inference import tiling_plan
from fcn_jax.inference.exported import load as load_exported
from fcn_jax.inference.exporting import export
from fcn_jax.inference.onnx_files import export_onnx
from fcn_jax.inference.prediction import predict
from fcn_jax.inference.tiling import choose_buckets
from fcn_jax.inference.tiling import disagreement
from fcn_jax.inference.tiling import exact_margin
from fcn_jax.inference.tiling import predict_tiled
from fcn_jax.inference.tiling import probabilities

__all__ = [
  "blending",
  "buckets",
  "choose_buckets",
  "disagreement",
  "exact_margin",
  "export",
  "export_onnx",
  "exported",
  "exporting",
  "load_exported",
  "onnx_files",
  "predict",
  "predict_tiled",
  "probabilities",
  "tiling",
  "tiling_plan",
]

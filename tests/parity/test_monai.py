"""Losses of regions against MONAI's."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import types

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)
with warnings.catch_warnings():
  # Of the packages that MONAI imports.
  warnings.simplefilter("ignore")
  monai_losses = pytest.importorskip(
    "monai.losses", reason="MONAI is not installed: make parity"
  )

pytestmark = pytest.mark.parity


def monai(name, **options):
  return getattr(monai_losses, name)(softmax=True, to_onehot_y=True, **options)


@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize(
  "ours, theirs",
  [
    (
      lambda **options: losses.dice(smooth=0.5, **options),
      lambda batch: monai(
        "DiceLoss", smooth_nr=0.5, smooth_dr=0.5, batch=batch
      ),
    ),
    (
      lambda **options: losses.dice(classes=(1, 2, 3), **options),
      lambda batch: monai(
        "DiceLoss",
        smooth_nr=1.0,
        smooth_dr=1.0,
        batch=batch,
        include_background=False,
      ),
    ),
    (
      lambda **options: losses.jaccard(smooth=1.0, **options),
      lambda batch: monai(
        "DiceLoss", smooth_nr=2.0, smooth_dr=2.0, batch=batch, jaccard=True
      ),
    ),
    (
      lambda **options: losses.tversky(
        alpha=0.2, beta=0.8, smooth=0.3, **options
      ),
      lambda batch: monai(
        "TverskyLoss",
        alpha=0.2,
        beta=0.8,
        smooth_nr=0.3,
        smooth_dr=0.3,
        batch=batch,
      ),
    ),
  ],
  ids=["dice", "dice without background", "jaccard", "tversky"],
)
def test_losses_of_regions_are_those_of_monai(ours, theirs, over):
  rng = np.random.default_rng(0)
  scores = rng.normal(0, 2, (2, 6, 7, 4))
  labels = rng.integers(0, 3, (2, 6, 7))  # Class 3 is absent.
  theirs_scores = torch.from_numpy(
    np.ascontiguousarray(scores.transpose(0, 3, 1, 2))
  ).requires_grad_()
  value = theirs(batch=over == "batch")(
    theirs_scores, torch.from_numpy(labels[:, None])
  )
  value.backward()
  with jax.enable_x64(True):
    loss = losses.make(ours(over=over, absent="count"))

    def value_of(scores):
      score_map = types.ScoreMap(scores, 1, 0.0, (6, 7), "clamp")
      return loss(jax.random.key(0), score_map, jnp.asarray(labels)).loss

    found, gradient = jax.value_and_grad(value_of)(jnp.asarray(scores))
    found, gradient = jax.device_get((found, gradient))
  np.testing.assert_allclose(found, value.item(), rtol=1e-6)
  expected = theirs_scores.grad.numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)

import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import upsampling
from tests.helpers import score_maps


@pytest.mark.slow
def test_map_strips_is_the_function_of_all_logits():
  for stride, offset, edge in score_maps.GRIDS[:6:2]:
    score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
    labels = score_maps.make_labels(score_map)
    found = losses.loss_map(score_map, labels)
    logits = upsampling.to_pixels(score_map)
    expected = losses.pixel_cross_entropy(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

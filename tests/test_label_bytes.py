import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import label_bytes


@pytest.mark.parametrize("library", [np, jnp])
def test_labels_that_are_no_class_do_not_become_one(library):
  labels = library.array([-1, 256, 1000, 255, 3], library.int32)
  found = label_bytes.in_bytes(labels, num_classes=20)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, [254, 254, 254, 255, 3])


def test_bit_masks_and_many_classes_stay_as_they_are():
  masks = np.array([256, 0, 255, 3 << 8], np.uint32)
  assert label_bytes.in_bytes(masks, num_classes=20) is masks
  labels = np.array([254, 255], np.int32)
  assert label_bytes.in_bytes(labels, num_classes=255) is labels

import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import label_bits
from fcn_jax import types


@pytest.mark.parametrize("library", [np, jnp])
@pytest.mark.parametrize("num_classes", [1, 5, 23])
def test_a_bit_mask_has_a_bit_for_each_class_and_gives_them_back(
  library, num_classes
):
  rng = np.random.default_rng(0)
  classes = rng.random((2, 4, 5, num_classes)) < 0.4
  is_void = rng.random((2, 4, 5)) < 0.3
  masks = label_bits.bit_masks(
    library.asarray(classes), is_void=library.asarray(is_void)
  )
  assert masks.dtype == np.uint32
  assert isinstance(masks, np.ndarray) == (library is np)
  for place in np.ndindex(is_void.shape):
    expected = sum(
      2 ** (8 + c) for c in range(num_classes) if classes[place][c]
    )
    if is_void[place]:
      expected = types.IGNORE_LABEL
    assert masks[place] == expected
  found = label_bits.unpack_bit_masks(masks, num_classes=num_classes)
  np.testing.assert_array_equal(found, classes & ~is_void[..., None])


def test_numbers_of_classes_are_no_bit_masks():
  with pytest.raises(ValueError, match=r"int32; bit masks are uint32.*\[...,"):
    label_bits.unpack_bit_masks(np.zeros((2, 2), np.int32), num_classes=3)

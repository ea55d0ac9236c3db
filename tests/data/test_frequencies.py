import numpy as np
import pytest

from fcn_jax import data


def _dataset(*labels):
  examples = [
    data.Example(
      np.zeros((1, len(label), 3), np.uint8), np.array([label]), "one"
    )
    for label in labels
  ]
  return data.Dataset(
    examples, ("a", "b"), np.zeros((2, 3), np.uint8), "made up"
  )


def test_classes_are_counted_over_all_and_where_they_are():
  dataset = _dataset([0, 0, 0, 255], [0, 1, 1, 1, 1])
  frequencies = data.class_frequencies(dataset)
  assert np.allclose(frequencies.shares, [4 / 8, 4 / 8])
  assert np.allclose(frequencies.shares_where_present, [4 / 8, 4 / 5])


def test_a_class_without_pixels_has_the_share_0():
  frequencies = data.class_frequencies(_dataset([0, 0, 255]))
  for shares in frequencies:
    np.testing.assert_array_equal(shares, [1, 0])


def test_a_data_set_of_void_is_an_error():
  with pytest.raises(ValueError, match="no pixel of these 1 examples has a cl"):
    data.class_frequencies(_dataset([255, 255]))


def test_a_label_that_is_no_class_is_an_error_that_names_the_example():
  with pytest.raises(ValueError, match="one has the label 256"):
    data.class_frequencies(_dataset([0, 1, 256]))

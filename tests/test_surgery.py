import numpy as np
import pytest

from fcn_jax.weights import surgery


def variables(**params):
  return {"params": {name: {"kernel": x} for name, x in params.items()}}


def test_arrays_of_equal_name_and_shape_are_copied_and_all_are_named():
  source = variables(
    conv=np.ones((3, 3), np.float64),
    score=np.ones((2, 21)),
    score_pool3=np.ones(4),
  )
  target = variables(
    conv=np.zeros((3, 3), np.float32),
    score=np.zeros((2, 60)),
    score_pool4=np.zeros(5),
  )
  found, report = surgery.transplant(source, target)
  assert found["params"]["conv"]["kernel"].dtype == np.float32
  assert found["params"]["conv"]["kernel"].all()
  assert not found["params"]["score"]["kernel"].any()
  assert found["params"].keys() == target["params"].keys()
  assert report == (
    ("params/conv/kernel",),
    ("params/score_pool4/kernel",),
    ("params/score/kernel",),
    ("params/score_pool3/kernel",),
  )
  assert "left over in the source (1): params/score_pool3/kernel" in str(report)


def test_networks_that_share_nothing_are_refused():
  with pytest.raises(ValueError, match="(?s)different trunks.*left over"):
    surgery.transplant(
      variables(conv1=np.ones(3)), variables(conv2=np.zeros(3))
    )

import threading

import jax
import numpy as np
import pytest

from fcn_jax import inference
from fcn_jax import models
from fcn_jax.inference import replicas
from tests.helpers import tiny_networks


def test_results_come_in_order_whichever_is_ready_first():
  second = threading.Event()

  def function(name, item):
    if item == 0:
      assert second.wait(timeout=60)
    if item == 1:
      second.set()
    return name, 10 * item

  found = list(replicas.in_order(function, "ab", range(5)))
  assert found == [(i, ("ab"[i % 2], 10 * i)) for i in range(5)]


def test_an_error_of_one_device_reaches_the_caller():
  def function(name, item):
    if item == 3:
      raise ValueError(f"{name}{item}")

  with pytest.raises(ValueError, match="b3"):
    list(replicas.in_order(function, "ab", range(100)))


@pytest.mark.long
@pytest.mark.parametrize("blending", ["none", "gaussian"])
def test_several_devices_predict_the_bits_of_one(monkeypatch, blending):
  tiny_networks.add_tiny(monkeypatch)
  model = models.FCN(3, backbone="tiny")
  variables = tiny_networks.random_variables(model)
  image = tiny_networks.picture(200, 180)
  options = {"tile_size": 128, "blending": blending}
  if blending == "none":
    options["margin"] = 16
  one, several = (
    inference.predict_tiled(model, variables, image, devices=devices, **options)
    for devices in (None, jax.devices()[:3])
  )
  np.testing.assert_array_equal(one, several)
  assert len(np.unique(one)) > 1

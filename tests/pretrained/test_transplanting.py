import flax.linen as nn
import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.pretrained import transplanting


def variables(**params):
  return {"params": {name: {"kernel": x} for name, x in params.items()}}


def random(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


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
  found, report = transplanting.transplant(source, target)
  assert found["params"]["conv"]["kernel"].dtype == np.float32
  assert found["params"]["conv"]["kernel"].all()
  assert not found["params"]["score"]["kernel"].any()
  assert found["params"].keys() == target["params"].keys()
  assert report == transplanting.Report(
    copied=("params/conv/kernel",),
    kept=("params/score_pool4/kernel",),
    reshaped=("params/score/kernel",),
    unused=("params/score_pool3/kernel",),
  )
  assert "left over in the source (1): params/score_pool3/kernel" in str(report)


def test_networks_that_share_nothing_are_refused():
  with pytest.raises(ValueError, match="(?s)different backbones.*left over"):
    transplanting.transplant(
      variables(conv1=np.ones(3)), variables(conv2=np.zeros(3))
    )


def test_a_head_with_more_classes_keeps_the_old_ones_first():
  source = variables(conv=np.ones(3), score_fr=random(1, 1, 4, 21))
  target = variables(conv=np.ones(3), score_fr=np.zeros((1, 1, 4, 60)))
  found, report = transplanting.transplant(source, target)
  kernel = found["params"]["score_fr"]["kernel"]
  np.testing.assert_array_equal(
    kernel[..., :21], source["params"]["score_fr"]["kernel"]
  )
  assert not kernel[..., 21:].any()
  assert report.extended == ("params/score_fr/kernel",)
  # With fewer, no class is known to be one of the old ones.
  found, report = transplanting.transplant(target, source)
  assert report.reshaped == ("params/score_fr/kernel",)


def test_a_fourth_channel_sees_the_mean_of_the_colours_filters():
  source = variables(conv1_1=random(3, 3, 3, 8), conv1_2=np.ones(2))
  target = variables(conv1_1=np.zeros((3, 3, 4, 8)), conv1_2=np.ones(2))
  found, report = transplanting.transplant(source, target)
  old, new = (one["params"]["conv1_1"]["kernel"] for one in (source, found))
  np.testing.assert_array_equal(new[:, :, :3], old)
  np.testing.assert_allclose(
    new[:, :, 3], (old[:, :, 0] + old[:, :, 1] + old[:, :, 2]) / 3, rtol=1e-6
  )
  assert report.extended == ("params/conv1_1/kernel",)


def test_no_other_layer_grows():
  source = variables(conv=np.ones(3), conv4_2=np.ones((3, 3, 3, 8)))
  target = variables(conv=np.ones(3), conv4_2=np.zeros((3, 3, 4, 8)))
  found, report = transplanting.transplant(source, target)
  assert report.reshaped == ("params/conv4_2/kernel",)
  assert not found["params"]["conv4_2"]["kernel"].any()


def test_stages_begin_with_the_stage_before():
  nets = [
    fcn.models.FCN(3, backbone="vgg_small", head_width=8, stride=stride)
    for stride in (32, 16, 8)
  ]
  images = np.zeros((1, 32, 32, 3), np.uint8)
  states = [
    jax.tree.map(
      lambda leaf, number=number: np.full(leaf.shape, number, np.float32),
      jax.eval_shape(lambda net=net: net.init(KEY, images, train=False)),
    )
    for number, net in enumerate(nets)
  ]
  for before, state, new in zip(
    states, states[1:], ("pool4", "pool3"), strict=False
  ):
    _, report = transplanting.transplant(before, state)
    names = [name for name, _ in transplanting.named(before)]
    assert sorted(report.copied) == sorted(names)
    assert report.kept == (
      f"params/score_{new}/bias",
      f"params/score_{new}/kernel",
    )
    assert not (report.unused or report.reshaped or report.extended)


KEY = jax.random.key(0)


@pytest.mark.parametrize("flattening", ["channels_first", "channels_last"])
def test_a_dense_classifier_is_a_convolution(flattening):
  """Same numbers at its own size; elsewhere, those of each crop."""
  features, size = random(1, 8, 9, 5), (3, 4)
  dense = random(3 * 4 * 5, 6)

  def classify(crop):
    if flattening == "channels_first":
      crop = crop.transpose(2, 0, 1)
    return crop.reshape(-1) @ dense

  kernel = transplanting.dense_to_convolution(
    dense, size, flattening=flattening
  )
  found = jax.lax.conv_general_dilated(
    features,
    np.ascontiguousarray(kernel),
    (1, 1),
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  assert found.shape == (1, 6, 6, 6)
  for i in range(6):
    for j in range(6):
      np.testing.assert_allclose(
        found[0, i, j], classify(features[0, i : i + 3, j : j + 4]), atol=1e-5
      )


def test_a_dense_kernel_of_another_map_is_refused():
  with pytest.raises(ValueError, match="not one for maps of 3x4"):
    transplanting.dense_to_convolution(
      random(61, 6), (3, 4), flattening="channels_last"
    )


class Classifier(nn.Module):
  """Convolutions without padding, then a dense layer on what is left."""

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Conv(5, (3, 3), padding="VALID", name="conv")(images))
    x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return nn.Dense(7, name="dense")(x.reshape(len(x), -1))


class Convolutional(nn.Module):
  """The same network, whose dense layer is a convolution."""

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Conv(5, (3, 3), padding="VALID", name="conv")(images))
    x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return nn.Conv(7, (4, 3), padding="VALID", name="dense")(x)


@pytest.mark.slow
def test_a_whole_classifier_is_its_convolutional_form_on_every_crop():
  crop, picture = random(1, 10, 8, 3), random(1, 16, 18, 3)
  classifier = Classifier()
  params = classifier.init(KEY, crop)["params"]
  dense = params["dense"]
  kernel = transplanting.dense_to_convolution(
    dense["kernel"], (4, 3), flattening="channels_last"
  )
  converted = {
    "params": {**params, "dense": {"kernel": kernel, "bias": dense["bias"]}}
  }
  classify = jax.jit(lambda crops: classifier.apply({"params": params}, crops))
  same = Convolutional().apply(converted, crop)
  assert same.shape == (1, 1, 1, 7)
  np.testing.assert_allclose(same[0, 0], classify(crop), atol=1e-5)
  found = Convolutional().apply(converted, picture)
  assert found.shape == (1, 4, 6, 7)
  for i in range(4):
    for j in range(6):
      part = picture[:, 2 * i : 2 * i + 10, 2 * j : 2 * j + 8]
      np.testing.assert_allclose(found[0, i, j], classify(part)[0], atol=1e-5)

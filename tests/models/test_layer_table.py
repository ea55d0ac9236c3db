import functools

import jax
import jax.numpy as jnp
import pytest

import fcn_jax as fcn
from fcn_jax import models


def test_rows_are_the_layers_of_the_network_with_their_geometry():
  model = models.FCN(5, backbone="vgg_small", stride=8, normalization="batch")
  summary = fcn.summary(model, image_size=(64, 96))
  rows = {row.name: row for row in summary.rows}
  assert rows["conv1_1"][:-1] == (
    # With its bias, and the scale and bias of its normalization.
    ("conv1_1", 3, (64, 96, 16), 3 * 3 * 3 * 16 + 3 * 16, 1, 3)
    + (2 * 3 * 3 * 3 * 16 * 64 * 96,)
  )
  assert rows["pool3"][:6] == ("pool3", 2, (8, 12), 0, 8, 30)
  # A score layer is where the features are that it scores.
  assert rows["score_pool3"].output == (8, 12, 5)
  assert rows["score_fr"].stride == 32
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, 64, 96, 3)),
  )
  sizes = [leaf.size for leaf in jax.tree.leaves(shapes["params"])]
  assert summary.num_parameters == sum(sizes)


@pytest.mark.long
@pytest.mark.parametrize(
  "model",
  [
    models.FCN(5, backbone="vgg_small", stride=8),
    models.FCN(5, backbone="resnet50", stride=8),
    models.FCN(5, backbone="googlenet", stride=16),
    models.FCNResNet(5),
    models.LateFusion(
      5,
      {
        "color": models.input_normalization.CAFFE,
        "hha": models.input_normalization.CAFFE,
      },
      backbone="vgg_small",
    ),
  ],
  ids=["vgg", "resnet", "googlenet", "fcn_resnet", "late_fusion"],
)
def test_the_work_is_about_what_xla_counts(model):
  size = (256, 256)
  summary = fcn.summary(model, image_size=size)
  images = jax.ShapeDtypeStruct((1, *size, model.num_channels), jnp.uint8)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images
  )
  counted = (
    jax.jit(functools.partial(model.apply, train=False))
    .lower(variables, images)
    .cost_analysis()["flops"]
  )
  # XLA leaves out what falls on the padding, and counts norms and the like.
  assert summary.flops == pytest.approx(counted, rel=0.06)
  params = jax.tree.leaves(variables["params"])
  assert summary.num_parameters == sum(leaf.size for leaf in params)


def test_a_table_fits_a_terminal_and_a_notebook():
  summary = fcn.summary(models.FCN(3, backbone="fcn_basic", stride=16))
  lines = repr(summary).splitlines()
  assert max(map(len, lines)) <= 100
  assert len({len(line) for line in lines[2:]}) == 1
  assert summary._repr_html_().count("<tr>") == 1 + len(summary.rows)
  # Four convolutions with norms, and the scores.
  convolutions = 7 * 7 * (3 + 3 * 64) * 64 + 4 * 64
  assert summary.num_parameters == convolutions + 4 * 2 * 64 + 64 * 3 + 3
  assert lines[0].startswith("FCN of fcn_basic: 612,483 parameters")


def test_one_number_is_a_square():
  summary = fcn.summary(
    models.FCN(3, backbone="fcn_basic", stride=16), image_size=32
  )
  assert summary.image_size == (32, 32)

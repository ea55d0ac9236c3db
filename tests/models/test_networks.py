"""AlexNets, GoogLeNets and ResNets: their facts, and what padding they see.

Most are narrow, and have fewer blocks. Compilation is most of the time: there
is none of XLA's optimisation, and convolutions are XLA's own.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from tests.helpers import tiny_networks

KEY = jax.random.key(0)
NUM_CLASSES = 4
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
models = fcn.models
FCN = functools.partial(models.FCN, NUM_CLASSES, dropout_rate=0.0)
# The finest stride of each backbone.
FINEST = {
  "alexnet": 4,
  "caffenet": 4,
  "fcn_basic": 1,
  "googlenet": 2,
  "googlenet_bn": 2,
  "resnet50": 2,
  "vgg16_bn": 1,
}
FCNResNet = functools.partial(models.FCNResNet, NUM_CLASSES, dropout_rate=0.0)


@pytest.fixture
def narrow(monkeypatch):
  changes = {
    models.backbones.basic: {"widths": (4, 6, 4, 8)},
    models.backbones.alexnet: {"widths": (4, 8, 8, 8, 4), "head_width": 8},
    models.backbones.googlenet: {"width": 1 / 32},
    models.backbones.resnet: {"widths": (2, 3, 4, 5), "depths": (1, 1, 1, 1)},
    models.backbones.vgg: {"widths": (4, 4, 4, 4, 4), "head_width": 8},
  }
  for file, change in changes.items():
    for name, architecture in file.ARCHITECTURES.items():
      replaced = dataclasses.replace(architecture, **change)
      monkeypatch.setitem(file.ARCHITECTURES, name, replaced)
  # As many modules as show all that there is between poolings.
  kept = ("inception_3b", "inception_4e")
  inceptions = {
    name: models.backbones.googlenet.INCEPTIONS[name] for name in kept
  }
  monkeypatch.setattr(models.backbones.googlenet, "INCEPTIONS", inceptions)
  monkeypatch.setattr(
    models.convolution, "conv_general_dilated", jax.lax.conv_general_dilated
  )


def outputs_and_shapes(model, *size):
  images = jnp.zeros((1, *size, model.num_channels), jnp.uint8)
  init = functools.partial(model.init_with_output, train=False)
  return jax.eval_shape(init, KEY, images)


def num_parameters(model):
  _, shapes = outputs_and_shapes(model, 224, 224)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def random_variables(model, seed=0):
  """Random ones, score layers and statistics included."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      fan_in = leaf.size // leaf.shape[-1]
      # More of one sign, so that few ReLUs are zero everywhere.
      drawn = rng.normal(0.5, 1, leaf.shape) * (2 / fan_in) ** 0.5
    elif name in ("scale", "var"):
      drawn = rng.uniform(0.7, 1.4, leaf.shape)
    else:
      drawn = rng.uniform(0, 0.3, leaf.shape)
    return jnp.asarray(drawn, leaf.dtype)

  _, shapes = outputs_and_shapes(model, 224, 224)
  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
  "backbone, millions, side",
  [("vgg16", 134, 404), ("caffenet", 57, 355), ("googlenet", 6, 907)],
)
def test_parameters_and_receptive_fields_are_those_of_the_papers(
  backbone, millions, side
):
  # Table 1 of CVPR 2015.
  for padding in ("same", "caffe"):
    model = models.FCN(21, backbone=backbone, stride=32, padding=padding)
    assert fcn.geometry.receptive_field(model.chain().score) == side
  assert round(num_parameters(model) / 1e6) == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize(
  "backbone, num_features, expected",
  [
    ("vgg16", 4096, 138_357_544),
    ("vgg16_bn", 4096, 138_365_992),
    ("alexnet", 4096, 61_100_840),
    ("googlenet_bn", 1024, 6_624_904),
    ("resnet50", 2048, 25_557_032),
    ("resnet101", 2048, 44_549_160),
  ],
)
def test_backbones_have_as_many_parameters_as_torchvisions_classifiers(
  backbone, num_features, expected
):
  # Numbers of torchvision's documentation, whose networks score 1000 classes.
  backbone = num_parameters(models.FCN(1, backbone=backbone, stride=32))
  assert backbone + 999 * (num_features + 1) == expected


def test_fcn_basic_has_the_size_and_receptive_field_of_the_paper():
  # Section 3.1 and Table 1 of SegNet: 106 pixels, and 0.65 million parameters,
  # of which the learned upsamplings are not here.
  model = models.FCN(11, backbone="fcn_basic", stride=2)
  assert fcn.geometry.receptive_field(model.chain().score) == 106
  convolutions = 7 * 7 * 64 * (3 + 3 * 64)
  scores = 4 * 11 * (64 + 1)
  # A bias, a scale and a shift for each channel.
  assert num_parameters(model) == convolutions + 3 * 4 * 64 + scores
  assert 0.61e6 < num_parameters(model) < 0.65e6


def test_fcn_resnet50_has_the_parameters_of_torchvisions():
  assert num_parameters(models.FCNResNet(21, auxiliary=True)) == 35_322_218


@pytest.mark.slow
@pytest.mark.parametrize(
  "backbone, padding",
  [
    (backbone, padding)
    for backbone in ("alexnet", "caffenet", "googlenet", "googlenet_bn")
    for padding in ("same", "caffe", "torchvision")
  ]
  + [
    ("resnet50", "same"),
    ("vgg16_bn", "torchvision"),
    ("fcn_basic", "same"),
  ],
)
def test_score_maps_lie_where_geometry_says(narrow, backbone, padding):
  size = (203, 97)
  for stride in (32, 16, 8, 4, 2, 1):
    coarsest = 16 if backbone == "fcn_basic" else 32
    if not FINEST[backbone] <= stride <= coarsest:
      continue
    model = FCN(backbone=backbone, padding=padding, stride=stride)
    score_map, _ = outputs_and_shapes(model, *size)
    assert score_map.stride == stride
    chain = model.chain()
    for axis, side in enumerate(size):
      cells = positions(chain.score, side)
      for layers in chain.skips:
        # Those that an upsampled cell reaches.
        reach = 2 * float(fcn.geometry.grid(layers).stride)
        finer = positions(layers, side)
        cells = finer[(finer > cells[0] - reach) & (finer < cells[-1] + reach)]
      assert score_map.scores.shape[1 + axis] == len(cells)
      assert score_map.offset == cells[0]


@pytest.mark.parametrize("backbone", FINEST)
def test_a_stride_that_a_backbone_does_not_have_is_refused(narrow, backbone):
  stride = FINEST[backbone]
  FCN(backbone=backbone, stride=stride)
  for other in (stride // 2, 12, 64):
    with pytest.raises(ValueError, match=f"with {backbone}, stride is {other}"):
      FCN(backbone=backbone, stride=other)


def test_fcn_basic_has_no_stride_32_and_no_geometry_of_published_weights():
  with pytest.raises(ValueError, match="stride is 32; choose one of 16, 8, 4"):
    FCN(backbone="fcn_basic", stride=32)
  with pytest.raises(ValueError, match="padding is 'caffe'; choose one of"):
    FCN(backbone="fcn_basic", stride=16, padding="caffe")


def positions(layers, side):
  """Image coordinates of the outputs of a stack of layers."""
  grid = fcn.geometry.grid(layers)
  cells = np.arange(fcn.geometry.output_size(layers, side))
  return float(grid.offset) + float(grid.stride) * cells


@pytest.mark.parametrize("size", [(1, 1), (9, 70)])
@pytest.mark.parametrize("make", [FCN, FCNResNet], ids=["FCN", "FCNResNet"])
def test_images_of_any_size_are_scored(narrow, make, size):
  backbones = ("resnet50",)
  if make is FCN:
    backbones = (*FINEST.keys() - {"vgg16_bn"},)
  for backbone in backbones:
    score_map, _ = outputs_and_shapes(make(backbone=backbone), *size)
    assert score_map.image_size == size
    assert math.prod(score_map.scores.shape) > 0


@pytest.mark.parametrize(
  "backbone, padding, side, layer",
  [
    ("alexnet", "torchvision", 94, "fc6"),
    ("vgg16_bn", "torchvision", 31, "pool5"),
    ("googlenet", "torchvision", 30, "pool4"),
  ],
)
def test_the_layer_that_leaves_nothing_of_an_image_is_named(
  narrow, backbone, padding, side, layer
):
  model = FCN(backbone=backbone, padding=padding)
  message = f"side of {side} pixels, of which {layer} leaves nothing"
  with pytest.raises(ValueError, match=message):
    outputs_and_shapes(model, 200, side)
  score_map, _ = outputs_and_shapes(model, 200, side + 1)
  assert math.prod(score_map.scores.shape) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
  "backbone, padding, stride",
  [
    ("caffenet", "same", 32),
    ("alexnet", "torchvision", 8),
    ("googlenet", "same", 32),
    ("googlenet", "caffe", 16),
    ("googlenet", "torchvision", 4),
    ("resnet50", "same", 32),
    ("resnet50", "same", 2),
    ("caffenet", "caffe", 4),
    ("fcn_basic", "same", 16),
    ("fcn_basic", "same", 1),
  ],
)
def test_a_score_sees_the_rows_that_geometry_says(
  narrow, backbone, padding, stride
):
  model = FCN(backbone=backbone, padding=padding, stride=stride)
  chain = model.chain()
  layers = chain.skips[-1] if chain.skips else chain.score
  name = f"score_{layers[-1].name}" if chain.skips else "score_fr"
  check_rows(model, layers, name)


@pytest.mark.slow
def test_a_score_of_torchvisions_fcn_sees_the_rows_that_geometry_says(narrow):
  model = FCNResNet(resized=False)
  # The last layer of its chain stands for the interpolation.
  layers = model.chain().score[:-1]
  check_rows(model, layers, "score_classifier")


def check_rows(model, layers, name):
  """Compares the rows that have a gradient with those of the layers' grid.

  Args:
    model: the network.
    layers: from the image to the scores that count.
    name: of the score layer.
  """
  # Columns are few: only rows are looked at.
  side = fcn.geometry.receptive_field(layers)
  size = (side + 150, 96)
  image = jnp.full((1, *size, 3), 200.0)

  # Positive, so that each pixel that is seen has a gradient, and equal, so that
  # pooling shares it. Other score layers are zero.
  def draw(path, leaf):
    layer, kind = (part.key for part in path[-2:])
    if kind == "kernel" and (layer == name or "score" not in layer):
      return jnp.full(leaf.shape, leaf.shape[-1] / leaf.size, leaf.dtype)
    return jnp.full(leaf.shape, kind in ("scale", "var"), leaf.dtype)

  score_map, shapes = outputs_and_shapes(model, *size)
  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  # Near the middle: the whole field is in the image.
  cell = score_map.scores.shape[1] // 2

  @jit
  @jax.grad
  def gradient(image):
    scores = model.apply(variables, image, train=False).scores
    return jnp.sum(scores[0, cell])

  seen = np.any(np.asarray(gradient(image))[0] != 0, axis=(1, 2))
  rows = np.flatnonzero(seen).tolist()
  assert len(rows) == side
  # Which cell of the layers' own that is: some are cut off for a skip.
  grid = fcn.geometry.grid(layers)
  first = round((score_map.offset - float(grid.offset)) // grid.stride)
  centre = grid.offset + grid.stride * (first + cell)
  assert (rows[0] + rows[-1]) / 2 == centre
  start = fcn.geometry.receptive_field_start(layers)
  assert rows[0] == start + grid.stride * (first + cell)


def example(sizes, num_channels=3, seed=0):
  """A padded batch, weights [N, H, W], and the images with both alone.

  In the padding are noise, and labels that are void.
  """
  rng = np.random.default_rng(seed)
  shape = (len(sizes), *(max(sides) + 5 for sides in zip(*sizes, strict=True)))
  images = rng.integers(0, 256, (*shape, num_channels)).astype(np.uint8)
  labels = rng.integers(0, NUM_CLASSES, shape).astype(np.int32)
  labels[rng.random(shape) < 0.1] = fcn.types.IGNORE_LABEL
  weights = (rng.random(shape) < 0.3).astype(np.float32)
  alone = []
  for n, (height, width) in enumerate(sizes):
    part = np.s_[n : n + 1, :height, :width]
    batch = fcn.types.Batch(images[part], labels[part].copy())
    alone.append((batch, weights[part].copy()))
    labels[n, height:] = labels[n, :, width:] = fcn.types.IGNORE_LABEL
  batch = fcn.types.Batch(images, labels, np.array(sizes, np.int32))
  return jax.tree.map(jnp.asarray, (batch, weights, alone))


def assert_close(found, expected, tolerance=2e-5):
  """Compares trees; the tolerance is relative to each leaf's largest entry."""

  def compare(path, a, b):
    a, b = np.asarray(a), np.asarray(b)
    name = jax.tree_util.keystr(path)
    # Otherwise the comparison would say little.
    assert np.abs(b).max() > 0, name
    atol = tolerance * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)

  jax.tree_util.tree_map_with_path(compare, found, expected)


def loss_and_outputs(model, train, params, model_state, batch, weights):
  """The loss, summed over the heads; their logits, and batch statistics."""
  score_maps, model_state = model.apply(
    {"params": params, **model_state},
    batch.images,
    train=train,
    valid_sizes=batch.valid_sizes,
    mutable=list(model_state),
  )
  logits = {
    head: fcn.upsampling.to_pixels(score_map)
    for head, score_map in models.heads.by_name(score_maps).items()
  }
  loss = sum(
    fcn.losses.masked_cross_entropy(one, batch.labels, weights, normalize="sum")
    for one in logits.values()
  )
  return loss, (logits, model_state)


PADDED_NETWORKS = {
  "caffenet, caffe": (FCN, {"backbone": "caffenet", "padding": "caffe"}),
  "alexnet": (FCN, {"backbone": "alexnet", "padding": "torchvision"}),
  "googlenet, caffe": (
    FCN,
    {"backbone": "googlenet", "padding": "caffe", "stride": 16},
  ),
  "googlenet_bn": (
    FCN,
    {"backbone": "googlenet_bn", "padding": "torchvision", "stride": 32},
  ),
  "resnet50": (FCN, {"backbone": "resnet50", "stride": 2}),
  "fcn_basic": (FCN, {"backbone": "fcn_basic", "stride": 1}),
  "FCNResNet, auxiliary": (FCNResNet, {"auxiliary": True, "resized": False}),
  "two heads": (
    functools.partial(models.FCN, {"a": 4, "b": 5}, dropout_rate=0.0),
    {"backbone": "vgg_small", "stride": 16},
  ),
  "late fusion": (
    functools.partial(models.LateFusion, NUM_CLASSES, dropout_rate=0.0),
    {
      "modalities": {
        "color": models.input_normalization.NYUD_COLOR,
        "hha": models.input_normalization.NYUD_HHA,
      },
      "backbone": "vgg_small",
      "stride": 16,
      "padding": "caffe",
    },
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PADDED_NETWORKS)
def test_padding_is_not_seen_by(narrow, name):
  make, options = PADDED_NETWORKS[name]
  model = make(**options)
  sizes = ((101, 117), (96, 135), (120, 98))
  # The other images are there, but do not count.
  chosen = {"FCNResNet": 1, "resnet50": 2}.get(name, 0)
  batch, weights, alone = example(sizes, model.num_channels)
  weights = jnp.where(jnp.arange(3)[:, None, None] == chosen, weights, 0)
  params, state = split(random_variables(model))
  compute = functools.partial(loss_and_outputs, model, False)
  # Of all layers that ResNets do not have; for theirs, see the next test.
  has_gradient = name in ("caffenet, same", "googlenet, same")
  if has_gradient:
    compute = jax.value_and_grad(compute, has_aux=True)
  compute = jit(compute)
  found = compute(params, state, batch, weights)
  expected = compute(params, state, *alone[chosen])
  if has_gradient:
    (found, gradient), (expected, gradient_alone) = found, expected
    assert_close(gradient, gradient_alone, 1e-4)
  (loss, (logits, _)), (loss_alone, (logits_alone, _)) = found, expected
  assert_close(loss, loss_alone)
  height, width = sizes[chosen]
  for head, one in logits.items():
    assert_close(one[chosen, :height, :width], logits_alone[head][0])


def split(variables):
  """Parameters, and all else."""
  variables = dict(variables)
  return variables.pop("params"), variables


@pytest.mark.long
def test_a_trained_resnet_does_not_see_padding(narrow):
  model = FCNResNet()
  size = (101, 117)
  batch, weights, alone = example((size, size))
  stacked = jax.tree.map(
    lambda *parts: jnp.concatenate(parts), *(one for one, _ in alone)
  )
  params, state = split(random_variables(model))
  compute = jit(
    jax.value_and_grad(
      functools.partial(loss_and_outputs, model, True), has_aux=True
    )
  )
  (loss, (_, changed)), gradient = compute(params, state, batch, weights)
  (expected, (_, changed_alone)), gradient_alone = compute(
    params, state, stacked, weights[:, : size[0], : size[1]]
  )
  assert_close(loss, expected)
  assert_close(changed, changed_alone)
  assert_close(gradient, gradient_alone, 1e-3)


def centred(model, image):
  """Variables with which each class is the likeliest somewhere."""
  variables = random_variables(model)
  logits = logits_of(model, variables, image)
  scores = variables["params"]
  last = "score_classifier" if "score_classifier" in scores else "score_fr"
  scores[last]["bias"] -= jnp.mean(logits, axis=(0, 1))
  return variables


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, variables, image):
  score_map = model.apply(variables, image[None], train=False)
  return fcn.upsampling.to_pixels(models.heads.by_name(score_map)[""])[0]


@pytest.mark.long
@pytest.mark.parametrize(
  "make, options, size, tile_size",
  [
    (FCN, {"backbone": "caffenet", "padding": "caffe"}, (650, 60), 512),
    (FCNResNet, {}, (264, 200), 160),
    (FCN, {"backbone": "fcn_basic", "stride": 2}, (264, 200), 160),
    # One tile holds it all.
    (FCNResNet, {}, (101, 133), 160),
  ],
)
def test_tiles_have_the_classes_of_the_whole_picture(
  narrow, make, options, size, tile_size
):
  model, image = make(**options), tiny_networks.picture(*size)
  variables = centred(model, image)
  tiles = []

  def count(windows):
    tiles.extend(windows)
    return windows

  found = fcn.inference.predict_tiled(
    model, variables, image, tile_size=tile_size, progress=count
  )
  assert (len(tiles) > 1) == (max(size) > tile_size)
  logits = np.asarray(logits_of(model, variables, image))
  expected = logits.argmax(axis=-1)
  assert np.count_nonzero(np.bincount(expected.ravel()) > 100) > 1
  # Rounding may turn a pixel where two classes are almost equally likely.
  chosen = np.take_along_axis(logits, found[..., None].astype(int), axis=-1)
  np.testing.assert_allclose(
    chosen[..., 0], logits.max(axis=-1), atol=1e-4 * np.ptp(logits)
  )
  assert np.mean(found != expected) <= 2e-4


def export(path, model, variables):
  fcn.inference.export(
    path,
    model,
    variables,
    class_names=("sky", "road", "tree", "car"),
    palette=np.zeros((NUM_CLASSES, 3), np.uint8),
  )
  return fcn.inference.load_exported(path)


@pytest.mark.long
@pytest.mark.parametrize(
  "make, options",
  [
    (FCN, {"backbone": "caffenet", "padding": "caffe", "stride": 16}),
    (FCNResNet, {}),
  ],
)
def test_an_exported_network_has_the_classes_of_the_network_itself(
  narrow, tmp_path, make, options
):
  model, image = make(**options), tiny_networks.picture(133, 97)
  variables = centred(model, image)
  loaded = export(tmp_path / "network.zip", model, variables)
  for size in ((133, 97), (64, 70)):
    images = np.stack([image[: size[0], : size[1]]] * 2)
    found = loaded.predict(images)
    expected = fcn.inference.predict(model, variables, images)
    assert len(np.unique(expected)) > 1 or size != image.shape[:2]
    assert np.mean(found != np.asarray(expected)) < 1e-3


def test_a_network_of_four_channels_is_not_exported(tmp_path):
  model = FCN(inputs=models.input_normalization.NYUD_COLOR_DEPTH)
  with pytest.raises(ValueError, match="images of 4 channels; only those"):
    export(tmp_path / "network.zip", model, {})
  assert not list(tmp_path.iterdir())


def test_a_network_that_needs_large_pictures_is_not_exported(tmp_path):
  model = models.FCN(3, backbone="alexnet", padding="torchvision")
  with pytest.raises(ValueError, match='cannot be exported.*padding="same"'):
    fcn.inference.export(
      tmp_path / "net.zip",
      model,
      {},
      class_names=("a", "b", "c"),
      palette=np.zeros((3, 3), np.uint8),
    )
  assert not list(tmp_path.iterdir())


def test_torchvisions_fcn_has_one_number_of_classes():
  with pytest.raises(ValueError, match="one number of classes"):
    models.FCNResNet({"semantic": 33, "geometric": 3})


def test_the_last_pixels_of_a_picture_see_its_last_cell(narrow):
  """Where layers round down, it may lie more than a stride before them."""
  model = FCN(backbone="alexnet", stride=32, padding="torchvision")
  surroundings = fcn.inference.tiles.Surroundings.of(model, None)
  layers = model.chain().score
  grid = fcn.geometry.grid(layers)
  for side in range(700, 700 + 32):
    cell = fcn.geometry.output_size(layers, side) - 1
    begins = fcn.geometry.receptive_field_start(layers) + cell * grid.stride
    for first in range(side - 32, side):
      seen, _ = surroundings.inside(first, side - 1, side)
      assert seen <= max(0, begins)
  # Layers that round up, or pad by half their kernels, need no more.
  for backbone in ("vgg16", "alexnet", "resnet50", "googlenet"):
    model = FCN(backbone=backbone, stride=32)
    assert not fcn.inference.tiles.Surroundings.of(model, None).beyond

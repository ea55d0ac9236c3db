"""Images padded below and to the right have what they have alone.

A batch of images of odd sizes, with noise in its padding, is compared with the
images one by one. Compilation is most of the time of the tests: there is none
of XLA's optimisation, and convolutions are XLA's own.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn

KEY = jax.random.key(0)
VOID = fcn.types.IGNORE_LABEL
NUM_CLASSES = 4
SIZES = ((37, 53), (64, 41), (9, 96))
PADDED = (70, 101)
# As many layers as show all that a VGG has; 8 channels for a group.
TINY = dataclasses.replace(
  fcn.models.backbones.vgg.ARCHITECTURES["vgg_small"],
  widths=(8, 8, 8, 8, 8),
  depths=(1, 1, 1, 1, 1),
  head_width=8,
)
NARROW_VGG16 = dataclasses.replace(
  fcn.models.backbones.vgg.ARCHITECTURES["vgg16"],
  widths=(4, 4, 6, 6, 8),
  head_width=8,
)
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
every_net = pytest.mark.parametrize(
  "padding, stride",
  [("same", 32), ("caffe", 16), ("same", 8), ("caffe", 8), ("caffe", 2)],
)


@pytest.fixture(autouse=True)
def backbones(monkeypatch):
  added = {"tiny": TINY, "narrow_vgg16": NARROW_VGG16}
  for name, architecture in added.items():
    monkeypatch.setitem(
      fcn.models.backbones.vgg.ARCHITECTURES, name, architecture
    )
  monkeypatch.setattr(
    fcn.models.convolution,
    "conv_general_dilated",
    jax.lax.conv_general_dilated,
  )


def net(**options):
  options = {"backbone": "tiny", "dropout_rate": 0.0} | options
  return fcn.models.FCN(NUM_CLASSES, **options)


def random_variables(model, seed=0):
  """Random ones, score layers and biases included."""
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    KEY,
    jnp.zeros((1, 32, 32, 3), jnp.uint8),
  )
  rng = np.random.default_rng(seed)

  def draw(leaf):
    fan_in = max(1, leaf.size // leaf.shape[-1])
    values = np.abs(rng.normal(0, fan_in**-0.5, leaf.shape))
    signs = rng.choice([-1, 1], leaf.shape) if leaf.ndim > 1 else 1
    return jnp.asarray(signs * values, leaf.dtype)

  return jax.tree.map(draw, shapes)


def example(sizes=SIZES, padded=PADDED, seed=0):
  """A padded batch, its weights [N, H, W], and each image with both alone.

  In the padding are noise, and labels that are void.
  """
  rng = np.random.default_rng(seed)
  shape = (len(sizes), *padded)
  images = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
  labels = rng.integers(0, NUM_CLASSES, shape).astype(np.int32)
  labels[rng.random(shape) < 0.1] = VOID
  weights = (rng.random(shape) < 0.3).astype(np.float32)
  alone = []
  for n, (height, width) in enumerate(sizes):
    part = np.s_[n : n + 1, :height, :width]
    alone.append(
      (fcn.types.Batch(images[part], labels[part].copy()), weights[part].copy())
    )
    labels[n, height:], labels[n, :, width:] = VOID, VOID
  batch = fcn.types.Batch(images, labels, np.array(sizes, np.int32))
  return jax.tree.map(jnp.asarray, (batch, weights, alone))


def stack(alone):
  """The batch of images of one size from `example`."""
  batches = [batch for batch, _ in alone]
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)


def apply(model, variables, batch, **options):
  options = {"train": False} | options
  return model.apply(
    variables, batch.images, valid_sizes=batch.valid_sizes, **options
  )


def assert_close(found, expected, tolerance=1e-5):
  """Compares trees; the tolerance is relative to each leaf's largest entry."""

  def compare(path, a, b):
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(
      a,
      b,
      rtol=0,
      atol=tolerance * np.abs(b).max(),
      err_msg=jax.tree_util.keystr(path),
    )

  jax.tree_util.tree_map_with_path(compare, found, expected)


def loss_and_gradient(model, variables, batch, weights):
  """Gradient and value of the summed loss, the score map and the logits."""

  def loss_of(params):
    score_map = apply(model, {**variables, "params": params}, batch)
    logits = fcn.upsampling.to_pixels(score_map)
    loss = fcn.losses.masked_cross_entropy(
      logits, batch.labels, weights, normalize="sum"
    )
    return loss, (score_map, logits)

  (loss, outputs), gradient = jax.value_and_grad(loss_of, has_aux=True)(
    variables["params"]
  )
  return (gradient, loss), *outputs


def compare_with_images_alone(model, chosen):
  """Compares some images of a batch with themselves alone.

  Returns:
    The batch, weights that are 0 in all other images, the score map and the
    loss of the chosen images alone.
  """
  variables = random_variables(model)
  compute = jit(functools.partial(loss_and_gradient, model))
  batch, weights, alone = example()
  is_chosen = jnp.isin(jnp.arange(len(SIZES)), jnp.array(chosen))
  weights = jnp.where(is_chosen[:, None, None], weights, 0)
  found, score_map, logits = compute(variables, batch, weights)
  terms = []
  for n in chosen:
    sums, _, logits_alone = compute(variables, *alone[n])
    terms.append(jax.device_get(sums))
    height, width = SIZES[n]
    assert_close(logits[n, :height, :width], logits_alone[0])
  expected = jax.tree.map(lambda *terms: sum(terms), *terms)
  assert_close(found, expected)
  # Otherwise the comparison would say little.
  gradient, loss = expected
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
  return batch, weights, score_map, loss


@pytest.mark.slow
@every_net
def test_logits_losses_and_gradients_are_those_of_the_images_alone(
  padding, stride
):
  # One image suffices where the net is a part of that of stride 8.
  chosen = {32: [0], 16: [1], 8: [0, 2], 2: [1]}[stride]
  batch, weights, score_map, expected = compare_with_images_alone(
    net(padding=padding, stride=stride), chosen
  )
  if stride != 8:
    return
  for form in ("strips", "pixels"):
    loss = fcn.losses.make(
      sampler=fcn.sampling.Sampler(lambda key, labels: weights),
      normalize="sum",
      form=form,
      capacity=3000,
    )
    terms = jit(functools.partial(loss, None))(score_map, batch.labels)
    assert terms.num_dropped == 0
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-5)


@pytest.mark.slow
def test_group_normalization_is_that_of_the_images_alone():
  compare_with_images_alone(net(stride=32, normalization="group"), [0])


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["same", "caffe"])
def test_a_vgg16_scores_an_image_as_alone(padding):
  model = net(backbone="narrow_vgg16", padding=padding)
  score = jit(functools.partial(apply, model))
  variables = random_variables(model)
  batch, _, alone = example()
  logits = fcn.upsampling.to_pixels(score(variables, batch))
  expected = fcn.upsampling.to_pixels(score(variables, alone[0][0]))
  height, width = SIZES[0]
  assert_close(logits[0, :height, :width], expected[0])


@pytest.mark.long
def test_a_trained_batch_normalization_is_that_of_the_images_alone():
  # Images of one size are a batch without padding as well. Here XLA optimises:
  # its fusions round otherwise, which must not decide where a gradient goes.
  model = net(stride=32, normalization="batch")
  size = SIZES[0]
  batch, weights, alone = example((size, size))
  alone = stack(alone)
  variables = random_variables(model)

  @jax.jit
  def compute(batch, weights):
    def loss_of(params):
      score_map, statistics = apply(
        model,
        {**variables, "params": params},
        batch,
        train=True,
        mutable=["batch_stats"],
      )
      loss = fcn.losses.make(
        sampler=fcn.sampling.Sampler(lambda key, labels: weights), form="strips"
      )
      return loss(None, score_map, batch.labels).loss, statistics

    return jax.value_and_grad(loss_of, has_aux=True)(variables["params"])

  found = compute(batch, weights)
  expected = compute(alone, weights[:, : size[0], : size[1]])
  # A bias before a normalisation has no effect: its gradient is noise.
  for _, gradient in (found, expected):
    for name in gradient:
      if f"{name}_norm" in gradient:
        del gradient[name]["bias"]
  assert_close(found, expected, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["same", "caffe"])
def test_batch_statistics_are_those_of_all_cells_of_all_images(padding):
  model = net(normalization="batch", padding=padding)
  variables = random_variables(model)
  batch, _, alone = example()

  @jit
  def statistics(batch):
    _, changed = apply(
      model, variables, batch, train=True, mutable=["batch_stats"]
    )
    return changed["batch_stats"]["conv1_1_norm"]

  layer = variables["params"]["conv1_1"]
  kernel, bias = (np.asarray(layer[k], np.float64) for k in ("kernel", "bias"))
  pad = {"same": 1, "caffe": 100}[padding]
  cells = []
  for image, _ in alone:
    inputs = TINY.inputs
    pixels = np.asarray(image.images[0], np.float64) - inputs.mean
    pixels *= inputs.scale
    pixels = np.pad(pixels, [(pad, pad), (pad, pad), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), (0, 1))
    outputs = np.einsum("hwcij,ijcd->hwd", windows, kernel) + bias
    cells.append(outputs.reshape(-1, outputs.shape[-1]))
  cells = np.concatenate(cells)
  before = variables["batch_stats"]["conv1_1_norm"]
  expected = {
    "mean": 0.9 * np.asarray(before["mean"]) + 0.1 * cells.mean(axis=0),
    "var": 0.9 * np.asarray(before["var"]) + 0.1 * cells.var(axis=0),
  }
  assert_close(statistics(batch), expected)


@pytest.mark.slow
@every_net
def test_the_cells_that_count_are_as_many_as_an_image_has_alone(
  padding, stride
):
  chain = net(padding=padding, stride=stride).chain()
  edge = net(padding=padding).edge

  def map_of(layers, side):
    grid = fcn.geometry.grid(layers)
    cells = (fcn.geometry.output_size(layers, side),) * 2
    return fcn.types.ScoreMap(
      jax.ShapeDtypeStruct((1, *cells, 1), jnp.float32),
      stride=int(grid.stride),
      offset=float(grid.offset),
      image_size=(side, side),
      edge=edge,
    )

  def cells_of(layers, sizes):
    for layer in layers:
      sizes = layer.num_outputs(sizes)
    return sizes

  sides = np.arange(33, 140)
  sizes = jnp.asarray(np.stack([sides, sides], axis=1), jnp.int32)
  found, fused = cells_of(chain.score, sizes), map_of(chain.score, 140)
  alone = {side: map_of(chain.score, side) for side in sides.tolist()}
  for layers in chain.skips:
    skip = map_of(layers, 140)
    found = fcn.upsampling.num_fused_cells(
      fused, skip, found, cells_of(layers, sizes)
    )
    fused = jax.eval_shape(fcn.upsampling.add_skip, fused, skip)
    for side, coarse in alone.items():
      alone[side] = jax.eval_shape(
        fcn.upsampling.add_skip, coarse, map_of(layers, side)
      )
  expected = [score_map.scores.shape[1:3] for score_map in alone.values()]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_sizes_out_of_range_are_moved_into_it():
  model = net(normalization="group")
  variables = random_variables(model)
  batch, _, _ = example()
  score = jit(functools.partial(apply, model))
  odd, near = (
    score(
      variables, batch._replace(valid_sizes=jnp.array(sizes, jnp.int32))
    ).scores
    for sizes in (
      [[0, 0], [999, 5], [-1, 999]],
      [[1, 1], [PADDED[0], 5], [1, PADDED[1]]],
    )
  )
  assert np.all(np.isfinite(odd))
  np.testing.assert_array_equal(odd, near)


def test_sizes_of_another_shape_are_refused():
  model, (batch, _, _) = net(), example()
  for sizes in (batch.valid_sizes[:2], batch.valid_sizes[:, :1]):
    with pytest.raises(ValueError, match="a height and a width for each of"):
      model.init(KEY, batch.images, train=False, valid_sizes=sizes)


@pytest.fixture
def training():
  """A train step, and a state whose scores are not zero."""
  model = net(stride=32)
  optimizer = fcn.optimizers.caffe_sgd(0.01, momentum=0.9, weight_decay=0.0)
  variables = random_variables(model)
  state = fcn.train.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    model_state={},
    opt_state=optimizer.init(variables["params"]),
  )
  step = functools.partial(
    fcn.train.train_step, model, optimizer, fcn.losses.make()
  )
  return step, state


@pytest.mark.slow
def test_the_step_is_traced_once_with_sizes_and_once_without(training):
  step, state = training

  @chex.assert_max_traces(n=2)
  def counted(*arguments):
    return step(*arguments)

  train = jit(counted, donate_argnums=0)
  batch, _, _ = example()
  for _ in range(2):
    train.lower(state, batch, KEY)
    train.lower(state, batch._replace(valid_sizes=batch.valid_sizes + 1), KEY)
    train.lower(state, batch._replace(valid_sizes=None), KEY)


@pytest.mark.slow
def test_a_step_of_devices_on_padded_images_is_that_on_the_images(training):
  step, state = training
  step = jit(step)
  size = SIZES[0]
  batch, _, alone = example((size,) * 4)
  expected = step(state, stack(alone), KEY)
  # Devices have parts of the batch, sizes included.
  mesh = jax.make_mesh(
    (4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec
  everywhere = jax.sharding.NamedSharding(mesh, spec())
  shared_out = jax.sharding.NamedSharding(mesh, spec("batch"))
  found = step(
    jax.device_put(state, everywhere),
    jax.device_put(batch, shared_out),
    jax.device_put(KEY, everywhere),
  )
  assert len(found[1].loss.sharding.device_set) == 4
  assert_close(jax.device_get(found), jax.device_get(expected))

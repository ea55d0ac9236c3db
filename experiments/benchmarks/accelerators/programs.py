"""Programs to compile for described devices: the loss, steps, predictions."""

import functools

import jax
import jax.numpy as jnp

import fcn_jax as fcn
from experiments.benchmarks.accelerators import topologies


def loss(
  mesh: jax.sharding.Mesh,
  sampler: fcn.sampling.Sampler,
  *,
  num_classes: int,
  num_images: int = 16,
  image_size: int = 512,
  stride: int = 8,
  form: fcn.losses.LossForm = "auto",
  of: fcn.losses.PixelLoss | fcn.losses.RegionLoss = fcn.losses.cross_entropy,
) -> jax.stages.Compiled:
  """Value and gradient of the loss, from scores, a key and labels.

  Args:
    mesh: from `topologies.mesh`; images are split over its devices.
    sampler: which pixels enter the loss.
    num_classes: C.
    num_images: on all devices.
    image_size: height and width in pixels.
    stride: of the score map.
    form: of the loss.
    of: the loss of a pixel, or of regions.
  """
  compute = fcn.losses.make(of, sampler=sampler, form=form)
  cells = image_size // stride

  def loss_of(scores, labels, key):
    score_map = fcn.types.ScoreMap(
      scores, stride, (stride - 1) / 2, (image_size, image_size), "clamp"
    )
    return compute(key, score_map, labels).loss

  shape = num_images, cells, cells, num_classes
  scores = jax.ShapeDtypeStruct(shape, jnp.float32)
  labels = jax.ShapeDtypeStruct((num_images, image_size, image_size), jnp.uint8)
  key = jax.eval_shape(lambda: jax.random.key(0))
  program = jax.jit(jax.value_and_grad(loss_of))
  images = topologies.split(mesh, (scores, labels))
  return program.lower(*images, topologies.replicated(mesh, key)).compile()


def train_step(
  mesh: jax.sharding.Mesh,
  model: fcn.models.Network,
  sampler: fcn.sampling.Sampler,
  *,
  num_images: int,
  image_size: int,
  form: fcn.losses.LossForm = "auto",
  fsdp: bool = False,
) -> jax.stages.Compiled:
  """A train step with AdamW.

  Args:
    mesh: from `topologies.mesh`; devices share images, or their rows.
    model: the network.
    sampler: which pixels enter the loss.
    num_images: on all devices.
    image_size: height and width in pixels.
    form: of the loss.
    fsdp: whether devices share the state.
  """
  optimizer = fcn.optimizers.adamw(1e-3, total_steps=100)
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    lambda key: fcn.train.create_state(key, model, optimizer), key
  )
  where = jax.tree.map(lambda _: fcn.sharding.replicated(mesh), state)
  if fsdp:
    where = fcn.sharding.fully_sharded(mesh, state)
  loss = fcn.losses.make(
    sampler=sampler, form=form, row_shards=mesh.shape[fcn.sharding.ROWS]
  )
  step = fcn.train.make_train_step(model, optimizer, loss, state_sharding=where)
  _, images, labels = _inputs(model, num_images, image_size)
  # The schedule of the optimizer mixes integers with floats.
  with jax.numpy_dtype_promotion("standard"):
    return step.lower(
      jax.tree.map(topologies.placed, state, where),
      topologies.split(mesh, fcn.types.Batch(images, labels)),
      topologies.replicated(mesh, key),
    ).compile()


def predict(
  mesh: jax.sharding.Mesh,
  model: fcn.models.Network,
  *,
  num_images: int,
  image_size: int,
) -> jax.stages.Compiled:
  """The class of every pixel of images that fill their arrays."""
  variables, images, _ = _inputs(model, num_images, image_size)
  return _compile(
    functools.partial(fcn.inference.predict, model), mesh, variables, images
  )


def evaluate(
  mesh: jax.sharding.Mesh,
  model: fcn.models.Network,
  *,
  num_images: int,
  image_size: int,
) -> jax.stages.Compiled:
  """The confusion matrix of a batch of padded images."""
  variables, images, labels = _inputs(model, num_images, image_size)
  sizes = jax.ShapeDtypeStruct((num_images, 2), jnp.int32)

  def count(variables, images, labels, valid_sizes):
    predicted = fcn.inference.predict(model, variables, images, valid_sizes)
    return fcn.metrics.confusion_matrix(
      labels, predicted, num_classes=fcn.models.heads.num_classes(model)
    )

  return _compile(count, mesh, variables, images, labels, sizes)


def num_flops(
  model: fcn.models.Network, *, num_images: int, image_size: int
) -> float:
  """Operations of a forward pass, counted by XLA in a program for a CPU.

  Programs for accelerators have more: zeros that fill their lanes.
  """
  variables, images, _ = _inputs(model, num_images, image_size)
  scores = functools.partial(model.apply, train=False)
  cost = jax.jit(scores).lower(variables, images).cost_analysis()
  return cost["flops"]


def _compile(function, mesh, variables, *batch):
  """Compiles a function of variables and arrays that devices share."""
  variables = topologies.replicated(mesh, variables)
  batch = topologies.split(mesh, batch)
  return jax.jit(function).lower(variables, *batch).compile()


def _inputs(model, num_images, image_size):
  """Shapes of variables, images and labels."""
  shape = num_images, image_size, image_size
  images = jax.ShapeDtypeStruct((*shape, 3), jnp.uint8)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images
  )
  return variables, images, jax.ShapeDtypeStruct(shape, jnp.uint8)

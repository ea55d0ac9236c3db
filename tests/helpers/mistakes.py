"""Mistakes that users make, and the table of what the library says.

`python -m tests.helpers.mistakes` prints the table of docs/from_arrays.md.
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image

import fcn_jax as fcn
from tests.helpers import tiny_networks

_RANDOM = np.random.default_rng(0)
IMAGES = _RANDOM.integers(0, 256, (2, 32, 48, 3), np.uint8)
LABELS = _RANDOM.integers(0, 3, (2, 32, 48)).astype(np.int32)
KEY = jax.random.key(0)
OPTIMIZER = optax.sgd(0.1)


def network(num_classes=3):
  return fcn.models.FCN(num_classes, backbone="fcn_basic", stride=16)


@functools.cache
def parts():
  """A network, its variables, the state of its training, and the step."""
  model = network()
  variables = tiny_networks.random_variables(model)
  state = fcn.train.state_from(variables, OPTIMIZER)
  return model, variables, state, fcn.train.make_train_step(model, OPTIMIZER)


def from_arrays(images=IMAGES, labels=LABELS, **options):
  return fcn.data.from_arrays(images, labels, **options)


def train_batches(source=None, **options):
  if source is None:
    source = from_arrays(num_classes=3).source
  options = {"num_classes": 3, "crop_size": (16, 16)} | options
  augmentation = fcn.data.Augmentation(crop_size=options.pop("crop_size"))
  batches = fcn.data.train_batches(
    source, batch_size=2, augmentation=augmentation, seed=0, **options
  )
  return next(batches)


def predict(images=IMAGES, variables=None):
  model, its_own, _, _ = parts()
  variables = its_own if variables is None else variables
  return fcn.inference.predict(model, variables, images)


def predict_tiled(image=IMAGES[0], variables=None):
  model, its_own, _, _ = parts()
  variables = its_own if variables is None else variables
  return fcn.inference.predict_tiled(model, variables, image)


def step(images=IMAGES, labels=LABELS, state=None, key=KEY):
  _, _, its_own, compiled = parts()
  state = its_own if state is None else state
  return compiled(state, fcn.types.Batch(images, labels), key)


def donated():
  """A state whose memory another program has taken, as a step does."""
  state = jax.tree.map(jnp.copy, parts()[2])
  jax.jit(lambda state: state, donate_argnums=0)(state)
  return state


def example(**parts):
  """A source of two like examples."""
  given = {"image": IMAGES[0], "label": LABELS[0], "name": "cat"} | parts
  return [fcn.data.Example(**given)] * 2


def file_content():
  buffer = io.BytesIO()
  PIL.Image.fromarray(IMAGES[0]).save(buffer, format="PNG")
  return buffer.getvalue()


PICTURE = PIL.Image.fromarray(IMAGES[0])
ONE_CLASS = network(1)

# By what was given.
MISTAKES = {
  "`from_arrays`: images in 0..1": lambda: from_arrays(IMAGES / 255),
  "`from_arrays`: normalized images": lambda: from_arrays(IMAGES / 255 - 0.5),
  "`from_arrays`: a NaN": lambda: from_arrays(
    [np.where(IMAGES[0] > 9, IMAGES[0], np.nan), IMAGES[1]]
  ),
  "`from_arrays`: 16 bits": lambda: from_arrays(IMAGES.astype(np.uint16)),
  "`from_arrays`: channels first": lambda: from_arrays(
    IMAGES.transpose(0, 3, 1, 2)
  ),
  "`from_arrays`: names of files": lambda: from_arrays(["cat.jpg", "dog.jpg"]),
  "`from_arrays`: one image": lambda: from_arrays(IMAGES[0], LABELS[0]),
  "`from_arrays`: labels and images": lambda: from_arrays(LABELS, IMAGES),
  "`from_arrays`: other sizes": lambda: from_arrays(
    list(IMAGES), [LABELS[0], LABELS[1, :16]]
  ),
  "`from_arrays`: fewer labels": lambda: from_arrays(IMAGES, LABELS[:1]),
  "`from_arrays`: masks of 0 and 255": lambda: from_arrays(
    IMAGES, np.where(LABELS > 0, 255, 0)
  ),
  "`from_arrays`: bool masks": lambda: from_arrays(IMAGES, LABELS > 0),
  "`from_arrays`: colours as masks": lambda: from_arrays(IMAGES, IMAGES),
  "`from_arrays`: a label 2 of 2 classes": lambda: from_arrays(num_classes=2),
  "`num_classes=1`": lambda: train_batches(num_classes=1),
  "`train_batches`: a data set": lambda: train_batches(
    from_arrays(num_classes=3)
  ),
  "`train_batches`: pairs": lambda: train_batches(
    list(zip(IMAGES, LABELS, strict=True))
  ),
  "`train_batches`: a picture of PIL": lambda: train_batches(
    example(image=PICTURE)
  ),
  "`train_batches`: a label 2 of 2 classes": lambda: train_batches(
    num_classes=2
  ),
  "`train_batches`: labels of another size": lambda: train_batches(
    example(label=LABELS[0, :16])
  ),
  "`crop_size=0`": lambda: train_batches(crop_size=0),
  "step: a tuple": lambda: parts()[3](parts()[2], (IMAGES, LABELS), KEY),
  "step: labels and images": lambda: step(LABELS, IMAGES),
  "step: bool labels": lambda: step(labels=LABELS > 0),
  "step: float labels": lambda: step(labels=LABELS / 1.0),
  "step: uint16 labels": lambda: step(labels=LABELS.astype(np.uint16)),
  "step: labels [N, H, W, 1]": lambda: step(labels=LABELS[..., None]),
  "step: one-hot labels": lambda: step(labels=np.eye(5, dtype=int)[LABELS]),
  "step: labels of another size": lambda: step(labels=LABELS[:, :16]),
  "step: a list of images": lambda: step(list(IMAGES)),
  "step: images without a batch axis": lambda: step(IMAGES[0], LABELS[0]),
  "step: variables": lambda: step(state=parts()[1]),
  "step: a state used before": lambda: step(state=donated()),
  "step: a number as key": lambda: step(key=1),
  "`create_state(0, ...)`": lambda: fcn.train.create_state(
    0, network(), OPTIMIZER
  ),
  "`make_train_step`: a pixel loss": lambda: fcn.train.make_train_step(
    network(), OPTIMIZER, fcn.losses.cross_entropy
  ),
  "`make_train_step`: a sampler": lambda: fcn.train.make_train_step(
    network(), OPTIMIZER, fcn.sampling.places(rate=0.25)
  ),
  "step: a network of one class": lambda: jax.eval_shape(
    fcn.losses.make(),
    KEY,
    fcn.types.ScoreMap(jnp.zeros((2, 2, 3, 1)), 16, 7.5, (32, 48), "clamp"),
    LABELS,
  ),
  "`predict`: images in 0..1": lambda: predict(IMAGES / 255),
  "`predict`: a batch": lambda: predict(fcn.types.Batch(IMAGES, LABELS)),
  "`predict`: one image": lambda: predict(IMAGES[0]),
  "`predict`: a picture of PIL": lambda: predict(PICTURE),
  "`predict`: RGBA": lambda: predict(
    np.concatenate([IMAGES, IMAGES], -1)[..., :4]
  ),
  "`predict`: grey images": lambda: predict(IMAGES[..., :1]),
  "`predict`: a state": lambda: predict(variables=parts()[2]),
  "`predict`: parameters alone": lambda: predict(
    variables=parts()[1]["params"]
  ),
  "`predict`: variables of a state used before": lambda: predict(
    variables=fcn.train.variables(donated())
  ),
  "`predict`: variables for 5 classes": lambda: predict(
    variables=tiny_networks.random_variables(network(5))
  ),
  "`predict_tiled`: a batch of images": lambda: predict_tiled(IMAGES),
  "`predict_tiled`: a picture of PIL": lambda: predict_tiled(PICTURE),
  "`predict_tiled`: a list": lambda: predict_tiled(IMAGES[0].tolist()),
  "`predict_tiled`: the bytes of a file": lambda: predict_tiled(file_content()),
  "`predict_tiled`: a grey picture": lambda: predict_tiled(IMAGES[0, ..., 0]),
}


def message(mistake):
  """What the library says."""
  try:
    MISTAKES[mistake]()
  except ValueError as error:
    return str(error)
  raise AssertionError(f"{mistake}: no error")


def row(mistake):
  return f"| {mistake} | {message(mistake)} |"


if __name__ == "__main__":
  print("| mistake | message |\n| --- | --- |")
  for one in MISTAKES:
    print(row(one))

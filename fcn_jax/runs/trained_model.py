"""A model that a run has trained."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from fcn_jax import data
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import train
from fcn_jax import types
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """A trained network.

  Attributes:
    model: the network.
    variables: its parameters (their EMA if the run keeps one) and batch
      statistics; NumPy arrays.
    class_names: C names.
    palette: [C, 3] uint8, RGB of each class.
    config: the options of its run.
    step: at which step of the run.
    mean_iu: on the validation split at that step, in 0..1; None if it was not
      validated there.
    is_classifier: whether `fcn-jax convert` made it from a classifier, without
      the classifier's classes: training can begin with it, but it cannot
      predict.
    masks: how the masks that it was trained on encode the classes, as in
      `data.Dataset.masks`; None for data sets with a fixed encoding, and for
      runs of earlier versions.
    untrained: arrays that the file of weights, from which `fcn-jax convert`
      made it, did not have: with them, it cannot predict either.
    fingerprint: of the data that it was trained on, as in `data.Dataset`.
  """

  model: models.Network
  variables: types.Variables
  class_names: tuple[str, ...]
  palette: np.ndarray
  config: config_lib.Train
  step: int
  mean_iu: float | None
  is_classifier: bool
  untrained: tuple[str, ...] = ()
  masks: Mapping[str, Any] | None = None
  fingerprint: str | None = None

  @property
  def classes(self) -> data.Classes:
    """To score the network on data that lack some of its classes."""
    return data.Classes(self.class_names, self.palette.tolist(), self.masks)

  def check_is_trained(self) -> None:
    """Raises a `ValueError` if this can only begin training."""
    if self.is_classifier:
      workdir = self.config.run.workdir
      raise ValueError(
        f"{workdir} was made from a classifier, to begin training with: "
        f"fcn-jax train ... --init {workdir}. Give the work folder of a "
        "trained network."
      )
    if self.untrained:
      workdir, num = self.config.run.workdir, len(self.untrained)
      raise ValueError(
        f"{workdir} was made from a file without {num} of its arrays, such as "
        f"{', '.join(self.untrained[:3])}: with their initial values it cannot "
        f"predict, but begin training: fcn-jax train ... --init {workdir}. "
        "Give the work folder of a trained network."
      )

  def check_sees_pictures(self) -> None:
    """Raises a `ValueError` unless the network sees colours only."""
    modalities = self.config.data.modalities
    if modalities != "color":
      raise ValueError(
        f"the network of {self.config.run.workdir} sees {modalities}, but this "
        "command reads pictures in colour: score it with fcn-jax evaluate, or "
        "give arrays with its channels to fcn_jax.inference.predict_tiled."
      )


def parse_which(text: str) -> checkpoints.Which:
  """What the option --checkpoint says: "best", "latest" or a step's number.

  Raises:
    ValueError: if it says something else.
  """
  if text in ("best", "latest"):
    return text
  if text.isdecimal():
    return int(text)
  raise ValueError(
    f"checkpoint is {text!r}; it must be best, latest or the number of a step."
  )


def load(
  workdir: pathlib.Path | str, which: checkpoints.Which = "best"
) -> TrainedModel:
  """Loads the model of a run.

  Args:
    workdir: the run's work folder. Nothing in it is changed, and the run may
      still be training.
    which: "best" (by validation mean IU; the newest if the run was never
      validated), "latest" or the number of a step.

  Raises:
    ValueError: if there is no such run or checkpoint, or it is damaged.
  """
  workdir = pathlib.Path(workdir)
  config = folder.read_config(workdir)
  steps = workdir / folder.CHECKPOINTS
  if which == "best" and set(checkpoints.scores(steps).values()) <= {None}:
    which = "latest"
  step, metadata, _ = checkpoints.read_metadata(steps, which)
  folder.check_checkpoint(workdir, step, metadata, config)
  names, palette = _classes(steps, step, metadata)
  model = build.model(config, len(names))
  template = state_template(model, build.optimizer(config.optimizer))
  if config.optimizer.ema_decay is None:
    # The optimizer's state is twice as large as the parameters.
    del template["opt_state"]
  elif not model.freezing.number:
    del template["params"]
  restored = checkpoints.read(steps, step, template)
  params = restored.state.get("params")
  if config.optimizer.ema_decay is not None:
    # The average of frozen parameters is not kept; they do not change.
    params = optimizers.ema_of(restored.state["opt_state"], params)
  return TrainedModel(
    model=model,
    variables={"params": params, **restored.state["model_state"]},
    class_names=names,
    palette=palette,
    config=config,
    step=step,
    mean_iu=restored.mean_iu,
    is_classifier=metadata.get("weights", {}).get("is_classifier", False),
    masks=metadata["classes"].get("masks"),
    untrained=tuple(metadata.get("weights", {}).get("untrained", ())),
    fingerprint=metadata.get("data", {}).get("train"),
  )


def _classes(
  steps: pathlib.Path, step: int, metadata: Mapping[str, Any]
) -> tuple[tuple[str, ...], np.ndarray]:
  """The names and colours of a checkpoint's classes.

  Raises:
    ValueError: if it does not say them.
  """
  try:
    classes = metadata["classes"]
    names, palette = tuple(classes["names"]), np.array(classes["palette"])
    groups = [metadata.get(name, {}) for name in ("weights", "data")]
  except (KeyError, TypeError, ValueError) as error:
    raise _without_classes(steps, step) from error
  is_whole = (
    names
    and all(isinstance(name, str) for name in names)
    and palette.shape == (len(names), 3)
    and np.issubdtype(palette.dtype, np.integer)
    and np.all((palette >= 0) & (palette <= 255))
    and isinstance(classes.get("masks"), dict | None)
    and all(isinstance(group, dict) for group in groups)
  )
  if not is_whole:
    raise _without_classes(steps, step)
  return names, palette.astype(np.uint8)


def _without_classes(steps: pathlib.Path, step: int) -> ValueError:
  return ValueError(
    f"Step {step} in {steps} does not say the names and colours of its classes "
    "as runs do: choose another one, or use the version that saved it."
  )


def state_template(
  model: models.Network, optimizer: optax.GradientTransformation
) -> dict[str, Any]:
  """The shapes of what a checkpoint of a run holds, by name."""
  return jax.eval_shape(
    lambda key: train.create_state(key, model, optimizer),
    jax.random.key(0),
  )._asdict()

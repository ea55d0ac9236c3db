"""A network that train.py has trained, for scripts that use it."""

import dataclasses
import pathlib
from typing import Any

import chex
import jax
import numpy as np

import fcn_jax as fcn
import recipe
import run_folder
import train_presets


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained network.

  Attributes:
    config: the options of its run.
    model: the network.
    variables: its parameters, the averaged ones if the run keeps them, and
      batch statistics; NumPy arrays.
    class_names: C names.
    palette: [C, 3] uint8, RGB of each class.
    step: at which step of the run.
    mean_iu: on the validation split at that step, in 0..1; None if it was not
      validated there.
    is_classifier: whether convert_weights.py made it of a classifier, whose
      classes are not among its own: a beginning of training only.
  """

  config: train_presets.Train
  model: fcn.models.Network
  variables: chex.ArrayTree
  class_names: tuple[str, ...]
  palette: np.ndarray
  step: int
  mean_iu: float | None
  is_classifier: bool


def parse_checkpoint(text: str) -> fcn.runs.checkpoints.Which:
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


def load(workdir: pathlib.Path, which: fcn.runs.checkpoints.Which) -> Trained:
  """Loads a network from the work folder of its run.

  Args:
    workdir: the work folder; nothing in it is changed, and the run may be
      going on.
    which: "best" (by validation mean IU; the newest if none was validated, as
      after convert_weights.py), "latest" or the number of a step.

  Raises:
    ValueError: if there is no such run or checkpoint, or it is damaged.
  """
  config = run_folder.read_config(workdir)
  folder = workdir / run_folder.CHECKPOINTS
  if which == "best" and not any(
    score is not None for score in fcn.runs.checkpoints.scores(folder).values()
  ):
    which = "latest"
  step, metadata, _ = fcn.runs.checkpoints.read_metadata(folder, which)
  names = tuple(metadata["classes"]["names"])
  model = recipe.make_model(config, len(names))
  optimizer = recipe.make_optimizer(config)
  template = state_template(model, optimizer)
  if config.ema_decay is None:
    # The optimizer's state is twice as large as the parameters.
    del template["opt_state"]
  else:
    del template["params"]
  restored = fcn.runs.checkpoints.read(folder, step, template)
  params = restored.state.get("params")
  if params is None:
    params = fcn.optimizers.ema_of(restored.state["opt_state"])
  return Trained(
    config=config,
    model=model,
    variables={"params": params, **restored.state["model_state"]},
    class_names=names,
    palette=np.array(metadata["classes"]["palette"], np.uint8),
    step=step,
    mean_iu=restored.mean_iu,
    is_classifier=metadata.get("weights", {}).get("is_classifier", False),
  )


def check_is_trained(network: Trained) -> None:
  """Raises a `ValueError` if a network is only a beginning of one."""
  if network.is_classifier:
    raise ValueError(
      f"{network.config.workdir} was made of a classifier, to begin training "
      f"with: train.py ... --init {network.config.workdir}. Give the work "
      "folder of a trained network."
    )


def check_sees_pictures(network: Trained) -> None:
  """Raises a `ValueError` unless a network sees colours only."""
  modalities = network.config.modalities
  if modalities != "color":
    raise ValueError(
      f"the network of {network.config.workdir} sees {modalities}, and this "
      "script reads pictures in colour: score it with evaluate.py, or give "
      "arrays with its channels to fcn_jax.inference.predict_tiled."
    )


def state_template(model: fcn.models.Network, optimizer: Any) -> dict[str, Any]:
  """The shapes of what a checkpoint of train.py holds, by name."""
  return jax.eval_shape(
    lambda key: fcn.train.create_state(key, model, optimizer),
    jax.random.key(0),
  )._asdict()

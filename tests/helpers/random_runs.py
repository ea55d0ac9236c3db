"""Work folders of runs whose network is random, for commands that use one."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import runs
from fcn_jax.runs import build
from fcn_jax.runs import folder
from fcn_jax.runs import trained_model


def save(
  workdir: pathlib.Path,
  image: np.ndarray,
  *,
  names: tuple[str, ...],
  palette: np.ndarray,
  masks: dict | None = None,
  step: int = 1,
  **options,
) -> pathlib.Path:
  """Makes a work folder with one checkpoint, as `runs.train` does.

  Args:
    workdir: to be made.
    image: [H, W, 3] uint8, on which the classes have equal mean scores.
    names: of the classes.
    palette: [C, 3] uint8.
    masks: how masks encode the classes; None is as in runs of version 0.2.
    step: of the checkpoint.
    **options: of `runs.Train`, from any group.
  """
  config = runs.Train(run=runs.config.Run(workdir))
  config = config.replace(head_width=8, **options)
  folder.claim(config)
  model = build.model(config, len(names))
  optimizer = build.optimizer(config.optimizer)
  template = trained_model.state_template(model, optimizer)
  rng = np.random.default_rng(6)

  def draw(path, leaf):
    if jnp.issubdtype(leaf.dtype, jnp.integer):
      return jnp.ones(leaf.shape, leaf.dtype)
    if "var" in jax.tree_util.keystr(path):
      values = rng.uniform(0.7, 1.4, leaf.shape)
    else:
      scale = (2 * leaf.shape[-1] / leaf.size) ** 0.5 if leaf.ndim > 1 else 0.1
      values = rng.normal(0, scale, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  state = jax.tree_util.tree_map_with_path(draw, template)
  score_map = jax.jit(lambda *given: model.apply(*given, train=False))(
    {"params": state["params"], **state["model_state"]}, image[None]
  )
  # Then no class is the likeliest everywhere.
  mean = jnp.mean(score_map.scores, axis=(0, 1, 2))
  state["params"]["score_fr"]["bias"] -= mean
  classes = {"names": names, "palette": palette.tolist()}
  if masks is not None:
    classes["masks"] = masks
  steps = workdir / folder.CHECKPOINTS
  with runs.checkpoints.Checkpoints(steps) as checkpoints:
    checkpoints.save(step, state, metadata={"classes": classes})
    checkpoints.score(step, 0.5)
  return workdir

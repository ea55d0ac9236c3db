"""Work folders of runs whose network is random, for scripts that use one."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import recipe
import run_folder
import train_presets
import trained

import fcn_jax as fcn


def save(
  workdir: pathlib.Path,
  image: np.ndarray,
  *,
  names: tuple[str, ...],
  palette: np.ndarray,
  step: int = 1,
  **options,
) -> pathlib.Path:
  """Makes a work folder with one checkpoint, as train.py does.

  Args:
    workdir: to be made.
    image: [H, W, 3] uint8, on which the classes have equal mean scores.
    names: of the classes.
    palette: [C, 3] uint8.
    step: of the checkpoint.
    **options: of train.py.
  """
  config = train_presets.Train(workdir=workdir, head_width=8, **options)
  run_folder.claim(config)
  model = recipe.make_model(config, len(names))
  template = trained.state_template(model, recipe.make_optimizer(config))
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
  folder = workdir / run_folder.CHECKPOINTS
  with fcn.runs.checkpoints.Checkpoints(folder) as checkpoints:
    checkpoints.save(step, state, metadata={"classes": classes})
    checkpoints.score(step, 0.5)
  return workdir

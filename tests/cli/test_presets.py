"""Presets of fcn-jax train."""

import jax
import pytest

from fcn_jax import models
from fcn_jax import runs
from fcn_jax.cli import presets
from fcn_jax.runs import build
from fcn_jax.runs import trained_model

PRESETS = {name: config for name, (_, config) in presets.PRESETS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_in_order(config):
  config.check()
  model = build.model(config, 21)
  optimizer = build.optimizer(config.optimizer)
  # Users have JAX's default.
  with jax.numpy_dtype_promotion("standard"):
    template = trained_model.state_template(model, optimizer)
  assert runs.checkpoints.num_bytes(template["params"]) > 1e5
  rate = build.schedule(config.optimizer)(config.optimizer.warmup_steps)
  assert rate == pytest.approx(config.optimizer.learning_rate)


def test_no_two_presets_share_a_work_folder():
  workdirs = [config.run.workdir for config in PRESETS.values()]
  assert len({*workdirs}) == len(workdirs)


@pytest.mark.parametrize(
  "name",
  [
    *("nyud_fcn32s_color", "nyud_fcn32s_hha"),
    *("nyud_fcn32s_color_d", "nyud_fcn32s_color_hha"),
    *("siftflow_fcn32s", "siftflow_fcn16s", "siftflow_fcn8s"),
  ],
)
def test_presets_are_the_networks_and_recipes_that_were_released(name):
  config = PRESETS[name]
  released = models.released.NETWORKS[name.replace("_", "-")]
  num_classes = 33 if config.data.dataset == "sift_flow" else 40
  assert build.model(config, num_classes) == released.network()
  assert config.optimizer.learning_rate == released.learning_rate
  assert config.optimizer.momentum == released.momentum
  assert config.loss.normalize == released.normalize
  assert config.data.batch_size == released.batch
  network = config.network
  inits = [path for path in (network.init, network.init_hha) if path]
  starts = [path.name.split("_imagenet")[0] for path in inits]
  assert [start.replace("_", "-") for start in starts] == [
    *released.starts_from
  ]

"""Where a run begins: drawn at random, or with other runs."""

import numpy as np
import pytest

from fcn_jax import optimizers
from fcn_jax import runs
from fcn_jax.runs import build
from fcn_jax.runs import initial_state
from tests.helpers import random_runs
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
  """The work folder of a run whose network is random, of six classes."""
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "donor",
    np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8),
    names=tuple(f"class {i}" for i in range(6)),
    palette=np.zeros((6, 3), np.uint8),
    ema_decay=0.9,
  )


def begun(config, num_classes):
  model = build.model(config, num_classes)
  return initial_state.make(config, model, build.optimizer(config.optimizer))


@pytest.mark.slow
def test_another_net_begins_with_a_trained_ones_parameters(donor):
  trained = runs.load(donor, "best")
  config = trained.config.replace(stride=16, init=donor)
  state, said = begun(config, 4)
  # The head is for other classes, and the finest skip is not there.
  for name in ("conv1_1", "fc7", "conv5_2_norm"):
    tiny_runs.assert_same_bits(
      state.params[name], trained.variables["params"][name]
    )
  tiny_runs.assert_same_bits(
    state.model_state["batch_stats"], trained.variables["batch_stats"]
  )
  assert not np.any(state.params["score_fr"]["kernel"])
  assert f"initial parameters: {donor}, step 1" in said
  assert "left over in the source (2): params/score_pool3/bias" in said
  assert "of another shape in the source (4): params/score_fr/bias" in said
  tiny_runs.assert_same_bits(optimizers.ema_of(state.opt_state), state.params)
  assert state.step == 0


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"backbone": "vgg11"},
      "has the backbone vgg_small, but this .* --back",
    ),
    ({"normalization": "group"}, "has the normalization batch.*--normalizatio"),
    ({"inputs": "caffe"}, "pixels scaled by .* leave --inputs out"),
  ],
)
def test_a_run_that_does_not_fit_is_no_beginning(donor, options, message):
  config = runs.load(donor).config.replace(init=donor, **options)
  with pytest.raises(ValueError, match=message):
    begun(config, 6)


@pytest.mark.slow
def test_a_run_that_is_not_there_is_no_beginning(donor, tmp_path):
  config = runs.load(donor).config.replace(init=tmp_path / "nothing")
  message = "the run to begin with, .*nothing, cannot be used: .*convert import"
  with pytest.raises(ValueError, match=message):
    begun(config, 6)

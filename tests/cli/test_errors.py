"""Errors that end a run, in a paragraph."""

import pytest

from fcn_jax.cli import errors
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import step_folders


@pytest.mark.parametrize(
  "error, message",
  [
    (step_folders.DamagedError("steps/3 is damaged: a bit."), "sets that step"),
    (OSError(28, "No space left"), "continues from the newest checkpoint"),
  ],
)
def test_what_ends_a_run_is_a_paragraph_with_the_remedy(
  tmp_path, error, message
):
  config = config_lib.Train(run=config_lib.Run(tmp_path))
  with pytest.raises(SystemExit) as ended, errors.ends_of_runs(config):
    raise error
  assert str(error) in ended.value.code and message in ended.value.code
  assert "\n" not in ended.value.code

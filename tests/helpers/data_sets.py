"""Loading of data sets from the files of a test."""

import pytest

from fcn_jax import data


def load(name, folder, tmp_path, split="train", **options):
  """Loads a split; what is prepared lies in tmp_path/data."""
  return data.load(
    name,
    split=split,
    data_dir=folder,
    prepared_dir=tmp_path / "data",
    **options,
  )


def assert_refused(name, folder, tmp_path, message):
  """Loading says why not, with the folder, and leaves nothing behind."""
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    load(name, folder, tmp_path)
  assert str(folder) in str(error.value)
  # A paragraph, and a line for each fault.
  assert str(error.value).count("\n") <= 40
  assert not (tmp_path / "data").exists()

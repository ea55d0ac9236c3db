"""What is read of files of all formats; docs/file_formats.md is the table."""

import numpy as np
import pytest

from tests.helpers import file_formats

_CASES = file_formats.cases()
_by_name = pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)


def _check(found, expected, tolerance=0):
  if expected is None:
    assert isinstance(found, str), "must be refused"
    # A reason and a remedy.
    assert ";" in found
    return
  assert not isinstance(found, str), found
  assert found.shape == expected.shape
  difference = np.abs(found.astype(int) - expected.astype(int))
  assert difference.max() <= tolerance


@_by_name
def test_a_file_is_read_as_it_was_saved_or_refused(case):
  _check(file_formats.read_as_picture(case), case.picture, case.tolerance)
  _check(file_formats.read_as_mask(case), case.mask)


def test_a_truncated_file_is_refused_if_samples_are_missing():
  for case in _CASES:
    # The last number of a text may be cut without a trace.
    if case.mask is None or "(P2)" in case.name or "(P3)" in case.name:
      continue
    size = len(case.content)
    for end in (size - 1, size - 9, size * 3 // 4, size // 2, 12):
      cut = case._replace(content=case.content[:end])
      found = file_formats.read_as_mask(cut)
      if not isinstance(found, str):
        np.testing.assert_array_equal(found, case.mask, case.name)


def test_a_damaged_file_raises_no_other_error_than_the_documented_one():
  generator = np.random.default_rng(0)
  for case in _CASES:
    # JPEG in TIFF: libtiff prints each damage to stderr.
    if case.name.endswith("jpeg"):
      continue
    for _ in range(3):
      content = bytearray(case.content)
      for place in generator.integers(min(len(content), 150), size=2):
        content[place] = generator.integers(256)
      damaged = case._replace(content=bytes(content))
      file_formats.read_as_picture(damaged)
      file_formats.read_as_mask(damaged)


def test_the_page_of_formats_lists_what_was_found():
  page = file_formats.PAGE.read_text(encoding="utf-8")
  assert page == file_formats.page(), (
    "write it anew: python -m tests.helpers.file_formats"
  )

import json
import os

import numpy as np
import pytest

from fcn_jax import writers


def test_rows_come_back_as_they_were_written(tmp_path):
  path = tmp_path / "metrics.jsonl"
  rows = [{"step": 1, "loss": 0.5, "arm": "50 % é"}, {"list": [1, [2.5]]}]
  for row in rows:
    writers.append_json_line(path, row)
  assert writers.read_json_lines(path) == rows
  assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
  assert writers.read_json_lines(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("value", [float("nan"), np.float64("nan"), np.inf])
def test_what_json_has_no_number_for_is_null(tmp_path, value):
  path = tmp_path / "metrics.jsonl"
  row = {"loss": value, "iu": [0.5, value], "nested": {"x": (value,)}}
  expected = {"loss": None, "iu": [0.5, None], "nested": {"x": [None]}}
  writers.append_json_line(path, row)
  assert writers.read_json_lines(path) == [expected]
  writers.write_json(tmp_path / "summary.json", row)
  assert json.loads((tmp_path / "summary.json").read_text()) == expected


@pytest.mark.parametrize("cut", ['{"step": 2, "lo', '{"step": 2}', '{"a": "é'])
def test_a_cut_off_last_line_is_left_out_and_written_over(tmp_path, cut):
  path = tmp_path / "metrics.jsonl"
  writers.append_json_line(path, {"step": 1})
  with path.open("ab") as file:
    file.write(cut.encode())
  assert writers.read_json_lines(path) == [{"step": 1}]
  writers.append_json_line(path, {"step": 2})
  assert writers.read_json_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_file_of_nothing_but_a_cut_off_line_starts_anew(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"st')
  writers.append_json_line(path, {"step": 1})
  assert writers.read_json_lines(path) == [{"step": 1}]


def test_another_damaged_line_is_an_error_that_names_it(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
    writers.read_json_lines(path)


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "summary.json"
  writers.write_json(path, {"a": 1})
  with pytest.raises(TypeError):
    writers.write_json(path, {"a": object()})
  assert json.loads(path.read_text()) == {"a": 1}

  def crash(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
      writers.write_json(path, {"a": 2})
  assert json.loads(path.read_text()) == {"a": 1}
  writers.write_json(path, {"a": 3})
  assert json.loads(path.read_text()) == {"a": 3}
  assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]

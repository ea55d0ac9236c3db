import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing import event_accumulator

from fcn_jax.runs import records


def test_records_come_back_as_they_were_written(tmp_path):
  path = tmp_path / "metrics.jsonl"
  written = [{"step": 1, "loss": 0.5, "of": "50 % é"}, {"list": [1, [2.5]]}]
  for record in written:
    records.append_json_line(path, record)
  assert records.read_json_lines(path) == written
  assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_file_that_is_not_there_has_no_records(tmp_path):
  assert records.read_json_lines(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("value", [float("nan"), np.float64("nan"), np.inf])
def test_what_json_has_no_number_for_is_null(tmp_path, value):
  path = tmp_path / "metrics.jsonl"
  record = {"loss": value, "iu": [0.5, value], "nested": {"x": (value,)}}
  expected = {"loss": None, "iu": [0.5, None], "nested": {"x": [None]}}
  records.append_json_line(path, record)
  assert records.read_json_lines(path) == [expected]
  records.write_json(tmp_path / "summary.json", record)
  assert records.read_json(tmp_path / "summary.json") == expected
  # Other programs read it, too.
  there = json.loads((tmp_path / "summary.json").read_text())
  assert {name: there[name] for name in expected} == expected


@pytest.mark.parametrize("cut", ['{"step": 2, "lo', '{"step": 2}', '{"a": "é'])
def test_a_cut_off_last_line_is_left_out_and_written_over(tmp_path, cut):
  path = tmp_path / "metrics.jsonl"
  records.append_json_line(path, {"step": 1})
  with path.open("ab") as file:
    file.write(cut.encode())
  assert records.read_json_lines(path) == [{"step": 1}]
  records.append_json_line(path, {"step": 2})
  assert records.read_json_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_file_of_nothing_but_a_cut_off_line_starts_anew(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"st')
  records.append_json_line(path, {"step": 1})
  assert records.read_json_lines(path) == [{"step": 1}]


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_of_a_record_that_has_changed_is_found(tmp_path, bit):
  path = tmp_path / "metrics.jsonl"
  written = [{"step": step, "loss": 0.5 + step} for step in range(3)]
  for record in written:
    records.append_json_line(path, record)
  good = path.read_bytes()
  first = len(good) // 3
  for position in range(len(good)):
    changed = bytearray(good)
    changed[position] ^= 1 << bit
    path.write_bytes(changed)
    try:
      found = records.read_json_lines(path)
    except ValueError as error:
      assert "metrics.jsonl" in str(error)
      continue
    # The name of the first checksum, as if a version without had written it.
    assert position < first
    found[0] = {name: found[0][name] for name in ("step", "loss")}
    assert found == written


def test_lines_of_a_version_without_checksums_come_first_only(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n')
  records.append_json_line(path, {"step": 2})
  assert records.read_json_lines(path) == [{"step": 1}, {"step": 2}]
  with path.open("a") as file:
    file.write('{"step": 3}\n')
  with pytest.raises(
    ValueError, match="jsonl, line 3 is not as it was written"
  ):
    records.read_json_lines(path)


def test_a_record_is_not_lost_for_a_changed_line_break(tmp_path):
  path = tmp_path / "metrics.jsonl"
  records.append_json_line(path, {"step": 1})
  path.write_bytes(path.read_bytes()[:-1] + b"J")
  with pytest.raises(
    ValueError, match="ends with b'J' instead of a line break"
  ):
    records.append_json_line(path, {"step": 2})


@pytest.mark.parametrize(
  "text", ["3", "[" * 100_000, '{"a": 1}x', '{"a": "\xff']
)
def test_a_json_file_in_an_odd_form_is_damaged(tmp_path, text):
  path = tmp_path / "summary.json"
  path.write_bytes(text.encode("latin-1"))
  with pytest.raises(ValueError, match="summary.json is damaged"):
    records.read_json(path)


def test_a_json_file_that_was_changed_says_how_to_keep_the_change(tmp_path):
  path = tmp_path / "config.json"
  records.write_json(path, {"rate": 0.1, "name": "ä"})
  path.write_text(path.read_text().replace("0.1", "0.2"))
  with pytest.raises(ValueError, match="on purpose, remove the entry sha256"):
    records.read_json(path)
  there = json.loads(path.read_text())
  path.write_text(json.dumps({"rate": 0.2, "name": "ä"}))
  assert records.read_json(path) == {"rate": 0.2, "name": "ä"}
  assert len(there["sha256"]) == 64


def test_another_damaged_line_is_an_error_that_names_it(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
    records.read_json_lines(path)


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "summary.json"
  records.write_json(path, {"a": 1})
  before = path.read_text()
  with pytest.raises(TypeError):
    records.write_json(path, {"a": object()})
  assert path.read_text() == before

  def crash(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
      records.write_json(path, {"a": 2})
  assert path.read_text() == before
  records.write_json(path, {"a": 3})
  assert records.read_json(path) == {"a": 3}
  assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_records_of_repeated_steps_count_once():
  def record(step, loss):
    return {"kind": "train", "step": step, "loss": loss}

  found = records.effective(
    [
      {"kind": "start", "step": 0},
      *(record(step, 1) for step in (1, 2, 3)),
      {"kind": "start", "step": 2},
      *(record(step, 2) for step in (3, 4)),
    ]
  )
  assert [(one["step"], one["loss"]) for one in found] == [
    (1, 1),
    (2, 1),
    (3, 2),
    (4, 2),
  ]


def read_events(folder):
  """What TensorBoard's own reader finds; everything, not a sample."""
  accumulator = event_accumulator.EventAccumulator(
    str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
  )
  return accumulator.Reload()


def points(accumulator, name):
  return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_tensorboard_reads_back_numbers_pictures_and_texts(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  with records.TensorBoard(tmp_path / "new" / "folder") as board:
    board.text(0, "options", "**é** | b")
    board.scalars(10, {"loss": 1.5, "validation/mean_iu": np.float32(0.25)})
    board.scalars(20, {"loss": float("nan")})
    board.image(20, "validation/first", image)
  events = read_events(tmp_path / "new" / "folder")
  assert events.Tags()["scalars"] == ["loss", "validation/mean_iu"]
  assert points(events, "validation/mean_iu") == [(10, 0.25)]
  np.testing.assert_equal(points(events, "loss"), [(10, 1.5), (20, np.nan)])
  (shown,) = events.Images("validation/first")
  assert (shown.step, shown.height, shown.width) == (20, 5, 7)
  with PIL.Image.open(io.BytesIO(shown.encoded_image_string)) as picture:
    np.testing.assert_array_equal(np.asarray(picture), image)
  (text,) = events.Tensors("options/text_summary")
  assert text.tensor_proto.string_val[0].decode() == "**é** | b"


def test_odd_names_of_curves_are_escaped(tmp_path):
  odd = "iu/\x1b[31m\n\ud800|$" + 100_000 * "n"
  with records.TensorBoard(tmp_path) as board:
    board.scalars(1, {odd: 0.5})
  (name,) = read_events(tmp_path).Tags()["scalars"]
  assert name.startswith(r"iu/\x1b[31m\n\ud800|$n") and len(name) < 150


def test_what_was_written_is_on_disk_after_a_flush(tmp_path):
  with records.TensorBoard(tmp_path) as board:
    board.scalars(1, {"loss": 1.0})
    board.flush()
    assert points(read_events(tmp_path), "loss") == [(1, 1.0)]


def test_a_resumed_run_hides_later_steps_and_deletes_nothing(tmp_path):
  with records.TensorBoard(tmp_path) as board:
    board.text(0, "options", "as given")
    for step in (1, 2, 3):
      board.scalars(step, {"loss": float(step)})
  (first,) = tmp_path.iterdir()
  before = first.read_bytes()
  # In the same second, and with a record cut off by a crash before.
  first.write_bytes(before[:-3])
  with records.TensorBoard(tmp_path, resumed_step=1) as board:
    board.scalars(2, {"loss": 20.0})
  events = read_events(tmp_path)
  assert points(events, "loss") == [(1, 1.0), (2, 20.0)]
  assert len(events.Tensors("options/text_summary")) == 1
  assert len(list(tmp_path.iterdir())) == 2
  assert first.read_bytes() == before[:-3]


def test_pictures_of_another_type_are_refused(tmp_path):
  with records.TensorBoard(tmp_path) as board:
    with pytest.raises(AssertionError):
      board.image(1, "image", np.zeros((4, 4, 3)))
    with pytest.raises(AssertionError):
      board.image(1, "image", np.zeros((4, 4), np.uint8))


def test_a_full_disk_is_an_error_of_who_writes(tmp_path):
  if not pathlib.Path("/dev/full").exists():
    pytest.skip("only Linux has a device that is always full")
  with (
    open("/dev/full", "wb") as full,
    pytest.raises(OSError, match="No space left"),
    records.TensorBoard(tmp_path) as board,
  ):
    os.dup2(full.fileno(), board._file._writer.fileno())
    board.scalars(1, {"loss": 1.0})
    board.flush()


def test_options_become_a_table(tmp_path):
  options = {"steps": 5, "note": "a|b\nc", "data": {"name": "shapes"}}
  assert records.markdown_table(options) == (
    "| name | value |\n| --- | --- |\n"
    "| steps | 5 |\n| note | a\\|b c |\n| data.name | shapes |\n"
  )


@pytest.mark.slow
def test_tensorboard_files_need_neither_tensorflow_nor_an_import_of_pytorch(
  tmp_path,
):
  code = "\n".join(
    [
      "import pathlib, sys",
      "from fcn_jax.runs import records",
      "assert 'torch' not in sys.modules",
      "with records.TensorBoard(pathlib.Path(sys.argv[1])) as board:",
      "  board.scalars(1, {'loss': 1.0})",
      "assert 'tensorflow' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
  assert points(read_events(tmp_path), "loss") == [(1, 1.0)]


@pytest.mark.parametrize(
  "line, message",
  [
    ('{"step": 1}', "line 2 is no record"),
    ('{"kind": "train", "step": "1"}', "line 2 is no record"),
    ('{"kind": ["train"], "step": 1}', "line 2 is no record"),
    ("[1]", "line 2 is no record"),
    ("[" * 100_000, "line 2 is not JSON .* more than 64 levels"),
    ('{"kind": "train", "step": 1, "loss": NaN}', "line 2 is not JSON"),
  ],
)
def test_rows_that_are_no_records_are_named(tmp_path, line, message):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"kind": "start", "step": 0}\n' + line + "\n")
  with pytest.raises(ValueError, match=rf"metrics\.jsonl, {message}") as raised:
    records.read_metrics(path)
  assert "\n" not in str(raised.value)

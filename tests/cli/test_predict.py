import dataclasses
import os
import re

import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import predict
from fcn_jax.cli import predict_files
from tests.helpers import random_runs

pytestmark = pytest.mark.slow

NAMES = ("ground", "water", "tree")
PALETTE = np.array([[10, 20, 30], [0, 0, 250], [0, 200, 0]], np.uint8)
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """The work folder of a run whose network is random."""
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "run",
    picture(90, 120),
    names=NAMES,
    palette=PALETTE,
  )


@pytest.fixture(scope="module")
def network(workdir):
  return fcn.runs.load(workdir, "best")


@pytest.fixture
def run(workdir, tmp_path, monkeypatch):
  """Runs the command in a folder, and returns that of its results."""
  monkeypatch.chdir(tmp_path)
  out = tmp_path / "out"

  def call(*arguments):
    predict.main(
      [*map(str, arguments), "--workdir", str(workdir), "--out", str(out)]
    )
    return out

  return call


def picture(height, width, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 25 + 1, width // 25 + 1, 3))
  coarse = coarse.repeat(25, axis=0).repeat(25, axis=1)[:height, :width]
  noise = rng.integers(0, 256, (height, width, 3))
  return ((3 * coarse + noise) // 4).astype(np.uint8)


def save(path, array, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image.save(path, **options)
  return path


def read_classes(path):
  return fcn.data.files.decoding.decode_mask(path.read_bytes())


def files_in(folder):
  return sorted(
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if path.is_file() or path.name.startswith(".")
  )


def predicted(network, image):
  """Classes of a whole picture."""
  found = fcn.inference.predict(network.model, network.variables, image[None])
  return np.asarray(found[0])


def assert_same_classes(found, expected):
  assert found.shape == expected.shape
  assert len(np.unique(expected)) > 1
  # Rounding may turn a pixel where two classes are almost equally likely.
  assert np.mean(found != expected) < 1e-3


def test_classes_are_those_of_the_picture_as_it_is_displayed(
  run, network, tmp_path, capsys
):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  path = save(tmp_path / "a.b.jpg", picture(90, 120), exif=exif, quality=95)
  out = run(path)
  assert files_in(out) == ["classes/a.b.png", "overlays/a.b.jpg"]
  image = fcn.data.files.decoding.decode_picture(path.read_bytes())
  assert image.shape == (120, 90, 3)
  found = read_classes(out / "classes" / "a.b.png")
  assert_same_classes(found, predicted(network, image))
  with Image.open(out / "classes" / "a.b.png") as written:
    assert written.mode == "P"
    colors = np.array(written.convert("RGB"))
  np.testing.assert_array_equal(colors, PALETTE[found])
  with Image.open(out / "overlays" / "a.b.jpg") as overlay:
    assert overlay.width >= 90 and overlay.height > 120
  printed = capsys.readouterr().out
  shares = np.bincount(found.ravel(), minlength=3) / found.size
  for name, share in zip(NAMES, shares, strict=True):
    assert f"{name:6}  {100 * share:6.2f} %" in printed
  assert "1 pictures, 2 files" in printed and "step 1" in printed


@pytest.mark.long
def test_a_picture_in_tiles_has_the_classes_of_the_whole(
  run, network, tmp_path, capsys
):
  image = picture(340, 410)
  path = save(tmp_path / "large.png", image)
  out = run(path, "--tile-size", 320)
  expected = predicted(network, image)
  assert_same_classes(read_classes(out / "classes" / "large.png"), expected)
  assert "margin" not in capsys.readouterr().out
  path = path.rename(tmp_path / "cheap.png")
  run(path, "--tile-size", 320, "--margin", 0)
  found = read_classes(out / "classes" / "cheap.png")
  share = 100 * np.mean(found != expected)
  assert share > 0.1
  printed = capsys.readouterr().out
  line = next(line for line in printed.splitlines() if "margin of 0" in line)
  assert float(line.split(": ")[1].split(" %")[0]) == pytest.approx(
    share, abs=0.1
  )


@pytest.mark.long
def test_blended_tiles_are_those_of_the_library(run, network, tmp_path):
  image = picture(90, 120)
  path = save(tmp_path / "a.png", image)
  out = run(path, "--tile-size", 80, "--blending", "gaussian")
  expected = fcn.inference.probabilities(
    network.model,
    network.variables,
    image,
    tile_size=80,
    blending="gaussian",
  ).argmax(axis=-1)
  assert_same_classes(read_classes(out / "classes" / "a.png"), expected)
  assert np.mean(expected != predicted(network, image)) > 1e-3


@pytest.mark.long
def test_probabilities_are_read_without_pickle(run, network, tmp_path):
  image = picture(90, 120)
  path = save(tmp_path / "a.png", image)
  out = run(path, "--probabilities", "--scales", "1", "0.7", "--quarter-turns")
  with np.load(out / "probabilities" / "a.npz", allow_pickle=False) as file:
    assert tuple(file["class_names"]) == NAMES
    found = file["probabilities"]
  assert found.dtype == np.float16
  expected = fcn.inference.probabilities(
    network.model,
    network.variables,
    image,
    scales=(1.0, 0.7),
    quarter_turns=True,
  )
  np.testing.assert_allclose(found, expected, atol=1e-3)
  classes = read_classes(out / "classes" / "a.png")
  assert_same_classes(classes, expected.argmax(axis=-1))


def test_a_network_trained_on_smaller_pictures_sees_them_smaller(
  run, network, tmp_path, monkeypatch
):
  config = network.config.replace(resize=0.5)
  smaller = dataclasses.replace(network, config=config)
  monkeypatch.setattr(fcn.runs, "load", lambda *_: smaller)
  image = picture(91, 121)
  out = run(save(tmp_path / "a.png", image))
  expected = fcn.inference.probabilities(
    network.model, network.variables, image, scales=(0.5,)
  )
  found = read_classes(out / "classes" / "a.png")
  assert_same_classes(found, expected.argmax(axis=-1))
  assert np.mean(found != predicted(network, image)) > 0.01


def test_folders_keep_their_folders_and_results_are_not_pictures(run, tmp_path):
  for name in ("one.png", "inside/one.jpg", ".hidden/x.png", "inside/.y.png"):
    save(tmp_path / name, picture(30, 40))
  (tmp_path / "notes.txt").write_text("no picture")
  out = run(tmp_path)
  expected = ["classes/inside/one.png", "classes/one.png"]
  assert [name for name in files_in(out) if "classes" in name] == expected
  # Again: only what is new, or it would be refused.
  os.rename(tmp_path / "one.png", tmp_path / "two.png")
  (tmp_path / "inside" / "one.jpg").unlink()
  run(tmp_path)
  assert (out / "classes" / "two.png").exists()


def test_a_pattern_and_a_file_that_mean_one_picture_are_one(run, tmp_path):
  for name in ("shots/a.png", "shots/deep/b.png"):
    save(tmp_path / name, picture(30, 40))
  out = run("shots/**/*.png", "shots/a.png")
  assert [name for name in files_in(out) if "classes" in name] == [
    "classes/a.png",
    "classes/b.png",
  ]


def test_every_fault_is_named_before_anything_is_written(run, tmp_path, capsys):
  def fails(*arguments):
    with pytest.raises(SystemExit):
      run(*arguments)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message

  save(tmp_path / "good.png", picture(30, 40))
  save(tmp_path / "other" / "Good.jpg", picture(30, 40))
  broken = save(tmp_path / "cut.png", picture(30, 40))
  broken.write_bytes(broken.read_bytes()[:-700])
  (tmp_path / "empty.png").touch()
  (tmp_path / "nothing").mkdir()
  message = fails("good.png", "missing.png", "*.gif", "nothing")
  for fault in (
    "missing.png does not exist",
    "*.gif is a pattern that matches no file",
    "nothing is a folder without pictures",
  ):
    assert fault in message
  message = fails("good.png", "cut.png", "empty.png")
  assert "cut.png cannot be read" in message
  assert "empty.png is empty" in message and "good.png" not in message
  message = fails("good.png", "other/Good.jpg")
  assert "good.png and other/Good.jpg would both be good" in message
  assert "name the pictures" in fails()
  assert "checkpoint is 'newest'" in fails("good.png", "--checkpoint", "newest")
  assert "tile_size is 100" in fails(
    save(tmp_path / "l.png", picture(9, 110)), "--tile-size", 100
  )
  assert "margin is 8; with blending gaussian the network sees" in fails(
    "good.png", "--margin", 8, "--blending", "gaussian"
  )
  assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(run, tmp_path, capsys):
  path = save(tmp_path / "a.png", picture(30, 40))
  mine = tmp_path / "out" / "overlays" / "a.jpg"
  mine.parent.mkdir(parents=True)
  mine.write_text("mine")
  with pytest.raises(SystemExit):
    run(path)
  assert "overlays/a.jpg exists already" in capsys.readouterr().err
  assert files_in(tmp_path / "out") == ["overlays/a.jpg"]
  assert mine.read_text() == "mine"


def test_results_are_replaced_if_asked(run, network, tmp_path, capsys):
  image = picture(30, 40)
  path = save(tmp_path / "a.png", image)
  out = run(path)
  for file in ("classes/a.png", "overlays/a.jpg"):
    (out / file).write_text("old")
  run(path, "--overwrite")
  found = read_classes(out / "classes" / "a.png")
  assert_same_classes(found, predicted(network, image))
  with Image.open(out / "overlays" / "a.jpg") as overlay:
    assert overlay.format == "JPEG"
  assert files_in(out) == ["classes/a.png", "overlays/a.jpg"]


def test_bad_pictures_are_left_out_and_listed_if_asked(run, tmp_path, capsys):
  folder = tmp_path / "shots"
  save(folder / "good.png", picture(30, 40))
  broken = save(folder / "cut.png", picture(30, 40))
  broken.write_bytes(broken.read_bytes()[:-700])
  (folder / "empty.png").touch()
  with pytest.raises(SystemExit) as ended:
    run(folder, "--skip-bad")
  assert ended.value.code == 3
  shown = capsys.readouterr()
  assert "1 pictures, 2 files" in shown.out
  assert "left out 2 bad pictures:" in shown.err
  assert "cut.png cannot be read" in shown.err
  assert "empty.png is empty" in shown.err
  assert files_in(tmp_path / "out") == ["classes/good.png", "overlays/good.jpg"]


def test_if_all_pictures_are_bad_it_is_an_error(run, tmp_path, capsys):
  (tmp_path / "empty.png").touch()
  with pytest.raises(SystemExit) as ended:
    run("empty.png", "--skip-bad")
  assert ended.value.code == 1
  assert "nothing was written, as empty.png is empty" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_comes_meanwhile_is_not_overwritten(
  tmp_path, monkeypatch, has_links
):
  if not has_links:

    def link(*_):
      raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
  file, path = tmp_path / "file", tmp_path / "folder" / "path"
  file.write_text("new")
  predict_files.publish(file, path)
  assert path.read_text() == "new"
  file = tmp_path / "other"
  file.write_text("newer")
  with pytest.raises(FileExistsError):
    predict_files.publish(file, path)
  assert path.read_text() == "new"


def test_a_failure_leaves_nothing_half_done(run, tmp_path, monkeypatch, capsys):
  path = save(tmp_path / "a.png", picture(30, 40))

  def fail(*_):
    raise OSError("no space left")

  monkeypatch.setattr(predict_files, "write_classes", fail)
  with pytest.raises(SystemExit):
    run(path)
  message = capsys.readouterr().err
  assert "out/classes/a.png cannot be written (no space left)" in message
  assert not (tmp_path / "out").exists()


def test_a_full_disk_is_found_before(run, tmp_path, monkeypatch, capsys):
  path = save(tmp_path / "a.png", picture(30, 40))
  monkeypatch.setattr(predict.environment, "free_bytes", lambda _: 2000)
  with pytest.raises(SystemExit):
    run(path)
  assert "make room" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_pictures_of_all_kinds_are_read_as_for_training(run, tmp_path, capsys):
  image = Image.fromarray(picture(30, 40))
  for mode in ("L", "P", "CMYK", "RGBA"):
    suffix = "tif" if mode == "CMYK" else "png"
    save(tmp_path / f"{mode}.{suffix}", image.convert(mode))
  deep = np.asarray(image.convert("L")).astype(np.uint16) * 16
  save(tmp_path / "deep.png", deep)
  with pytest.raises(SystemExit):
    run(tmp_path)
  message = capsys.readouterr().err
  assert "deep.png has more than 8 bits" in message and "--white" in message
  out = run(tmp_path, "--white", 4095)
  found = {
    path.stem: read_classes(path) for path in (out / "classes").iterdir()
  }
  assert found.keys() == {"L", "P", "CMYK", "RGBA", "deep"}
  assert all(classes.shape == (30, 40) for classes in found.values())
  assert np.mean(found["deep"] != found["L"]) < 0.1


def test_pictures_are_as_large_as_the_option_says(run, tmp_path, capsys):
  path = save(tmp_path / "a.png", picture(30, 40))
  with pytest.raises(SystemExit):
    run(path, "--max-megapixels", 0.001)
  message = capsys.readouterr().err
  assert "a.png is too large" in message and "--max-megapixels" in message
  assert (run(path) / "classes" / "a.png").exists()


def test_pictures_that_are_not_read_are_not_passed_over(run, tmp_path, capsys):
  folder = tmp_path / "shots"
  save(folder / "good.png", picture(30, 40))
  (folder / "phone.HEIC").write_bytes(b"\0\0\0\x14ftypheic\0\0\0\0mif1")
  with pytest.raises(SystemExit):
    run(folder)
  assert "phone.HEIC is a HEIC picture" in capsys.readouterr().err
  films = tmp_path / "films"
  films.mkdir()
  (films / "a.mp4").write_bytes(b"\0\0\0\x14ftypisom\0\0\0\0isom")
  with pytest.raises(SystemExit):
    run(films)
  assert "extract its frames: ffmpeg -i" in capsys.readouterr().err


@pytest.mark.long
def test_pictures_of_many_sizes_share_programs(run, network, tmp_path):
  sizes = [(n, m) for n in (40, 70, 100) for m in (50, 80, 130)]
  for height, width in sizes:
    save(tmp_path / "shots" / f"{height}x{width}.png", picture(height, width))
  compiled = fcn.inference.prediction.compiled_predict
  before = compiled._cache_size()
  out = run(tmp_path / "shots", "--max-programs", 3)
  assert compiled._cache_size() - before <= 3
  for height, width in sizes[::3]:
    found = read_classes(out / "classes" / f"{height}x{width}.png")
    assert_same_classes(found, predicted(network, picture(height, width)))


def test_a_number_of_programs_is_checked_first(run, tmp_path, capsys):
  save(tmp_path / "a.png", picture(30, 40))
  with pytest.raises(SystemExit):
    run("a.png", "--max-programs", 0)
  assert "max_programs is 0; give 1 or more" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


@pytest.fixture
def begun(run, tmp_path, monkeypatch):
  """Three pictures, of which one was predicted before the command failed."""
  paths = [
    save(tmp_path / f"{name}.png", picture(30, 40, seed))
    for seed, name in enumerate("abc")
  ]
  write = predict_files.write_classes

  def fail(path, classes, palette):
    if (tmp_path / "out" / "classes" / "a.png").exists():
      raise OSError("no space left")
    write(path, classes, palette)

  with monkeypatch.context() as patch:
    patch.setattr(predict_files, "write_classes", fail)
    with pytest.raises(SystemExit):
      run(*paths)
  return paths


def test_the_same_command_continues(run, begun, tmp_path, capsys):
  out = tmp_path / "out"
  first = out / "classes" / "a.png"
  assert [path.name for path in first.parent.iterdir()] == ["a.png"]
  written = first.stat().st_mtime_ns
  run(*begun)
  said = capsys.readouterr().out
  assert "continuing a command that ended early" in said
  assert "3 pictures, 6 files" in said
  assert first.stat().st_mtime_ns == written
  assert not (out / predict_files.JOURNAL_FILE).exists()
  # The table of classes counts the pictures of before, too.
  run(*begun, "--overwrite")
  tables = [
    re.findall(r"([\d.]+) %", text) for text in (said, capsys.readouterr().out)
  ]
  assert tables[0] == tables[1]
  with pytest.raises(SystemExit):
    run(*begun)
  assert "exists already" in capsys.readouterr().err


def test_a_picture_that_has_changed_is_predicted_again(run, begun, tmp_path):
  first = tmp_path / "out" / "classes" / "a.png"
  save(begun[0], picture(50, 60))
  run(*begun)
  with Image.open(first) as found:
    assert found.size == (60, 50)


def test_other_options_do_not_continue(run, begun, tmp_path, capsys):
  with pytest.raises(SystemExit):
    run(*begun, "--flip")
  assert "classes/a.png exists already" in capsys.readouterr().err


def test_files_of_others_are_kept_when_continuing(run, begun, tmp_path, capsys):
  other = save(tmp_path / "d.png", picture(30, 40))
  theirs = tmp_path / "out" / "classes" / "d.png"
  theirs.write_text("of the user")
  with pytest.raises(SystemExit):
    run(*begun, other)
  assert "classes/d.png exists already" in capsys.readouterr().err
  assert theirs.read_text() == "of the user"
  # It was seen before anything was written.
  assert not (tmp_path / "out" / "classes" / "b.png").exists()


def test_a_damaged_journal_is_named(run, begun, tmp_path, capsys):
  (tmp_path / "out" / predict_files.JOURNAL_FILE).write_text("{}")
  with pytest.raises(SystemExit):
    run(*begun)
  assert f"{predict_files.JOURNAL_FILE} is damaged" in capsys.readouterr().err

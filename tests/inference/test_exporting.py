import concurrent.futures
import io
import json
import os
import runpy
import subprocess
import sys
import threading
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from fcn_jax.inference import picture_files

NAMES = ("sky", "road", "tree", "car")
PALETTE = np.array([[0, 0, 9], [255, 0, 0], [0, 255, 7], [9, 9, 9]], np.uint8)


def network(**options):
  """A network with random parameters and statistics, in all its layers."""
  model = fcn.models.FCN(
    num_classes=4, backbone="vgg_small", head_width=8, **options
  )
  shapes = jax.eval_shape(
    lambda key: model.init(
      key, jnp.zeros((1, 32, 32, 3), jnp.uint8), train=False
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda p: (
      jnp.asarray(np.abs(rng.normal(0.05, 0.1, p.shape)), p.dtype)
      if p.ndim == 1
      else jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype)
    ),
    shapes,
  )
  return model, variables


def pictures(num_images, height, width):
  rng = np.random.default_rng(2)
  shape = (num_images, height, width, 3)
  return rng.integers(0, 256, shape).astype(np.uint8)


def export(path, model, variables, **options):
  fcn.inference.export(
    path, model, variables, class_names=NAMES, palette=PALETTE, **options
  )
  return path


@pytest.fixture(scope="module")
def model_and_variables():
  return network(stride=8)


@pytest.fixture(scope="module")
def file(model_and_variables, tmp_path_factory):
  path = tmp_path_factory.mktemp("export") / "network.zip"
  return export(path, *model_and_variables, resize=0.5, step=7)


@pytest.mark.long
@pytest.mark.parametrize(
  ("options", "size"),
  [
    ({"stride": 16, "padding": "caffe", "normalization": "batch"}, (1, 65)),
    ({"stride": 8, "param_dtype": jnp.bfloat16}, (64, 30)),
    ({"stride": 2}, (64, 30)),
  ],
)
def test_images_of_any_size_have_the_scores_of_the_network_itself(
  tmp_path, options, size
):
  model, variables = network(**options)
  loaded = fcn.inference.load_exported(
    export(tmp_path / "network.zip", model, variables)
  )
  images = pictures(2, *size)
  scores = jax.jit(lambda v, x: model.apply(v, x, train=False))(
    variables, images
  )
  expected = jax.nn.softmax(fcn.upsampling.to_pixels(scores))
  found = loaded.probabilities(images)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  assert np.ptp(expected, axis=(1, 2)).max() > 0.01


# Runs where neither this package nor Flax can be imported.
ALONE = """
import runpy, sys
import numpy as np
others = "fcn_jax flax chex tifffile imagecodecs matplotlib".split()
sys.modules.update(dict.fromkeys(others, None))
file, images, classes, picture, _, cache = sys.argv[1:]
sys.argv = [file, picture, "--overlay", "--out", sys.argv[5], "--cache", cache]
runpy.run_path(file, run_name="__main__")
sys.path.insert(0, file)
import exported
network = exported.load(file)
np.save(classes, network.predict(np.load(images)))
assert not [name for name in sys.modules if name.startswith("flax.")]
"""


@pytest.mark.slow
def test_the_file_runs_where_the_package_cannot_be_imported(
  model_and_variables, file, tmp_path
):
  images = pictures(3, 37, 70)
  np.save(tmp_path / "images.npy", images)
  Image.fromarray(images[0]).save(tmp_path / "street.png")
  paths = [
    file,
    *(
      tmp_path / name
      for name in ("images.npy", "classes.npy", "street.png", "out", "cache")
    ),
  ]
  subprocess.run(
    [sys.executable, "-I", "-c", ALONE, *paths],
    check=True,
    # Small programs are kept, too.
    env={**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
  )
  assert list((tmp_path / "cache").iterdir())
  found = np.load(tmp_path / "classes.npy")
  expected = fcn.inference.predict(*model_and_variables, images)
  np.testing.assert_array_equal(found, expected)
  assert found.dtype == np.uint8
  assert len(np.unique(found)) > 1
  with Image.open(tmp_path / "out" / "classes" / "street.png") as mask:
    segmented = fcn.inference.load_exported(file).segment(images[0])
    np.testing.assert_array_equal(np.asarray(mask), segmented)
    np.testing.assert_array_equal(
      np.reshape(mask.getpalette(), (-1, 3))[: len(NAMES)], PALETTE
    )


@pytest.mark.slow
def test_a_picture_is_resized_as_for_training(model_and_variables, file):
  (picture,) = pictures(1, 90, 70)
  found = fcn.inference.load_exported(file).segment(picture)
  expected = fcn.inference.predict_tiled(
    *model_and_variables, picture, scales=(0.5,)
  )
  assert found.shape == (90, 70)
  assert np.mean(found == expected) > 0.999
  assert len(np.unique(expected)) > 1


def run_as_program(file, picture, monkeypatch, *options):
  out = picture.parent / "out"
  arguments = [file, picture, "--out", out, *options]
  monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
  for name in [name for name in sys.modules if name.startswith("exported")]:
    monkeypatch.delitem(sys.modules, name)
  runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
def test_a_picture_on_its_side_is_turned(file, tmp_path, monkeypatch):
  (picture,) = pictures(1, 37, 70)
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees.
  path = tmp_path / "street.png"
  Image.fromarray(picture).save(path, exif=exif)
  run_as_program(file, path, monkeypatch)
  with Image.open(tmp_path / "out" / "classes" / "street.png") as mask:
    assert mask.size == (37, 70)


@pytest.mark.slow
def test_a_mask_that_is_there_stays(file, tmp_path, monkeypatch, capsys):
  path = tmp_path / "street.png"
  Image.fromarray(pictures(1, 37, 70)[0]).save(path)
  mask = tmp_path / "out" / "classes" / "street.png"
  mask.parent.mkdir(parents=True)
  mask.write_text("mine")
  with pytest.raises(SystemExit):
    run_as_program(file, path, monkeypatch)
  assert "street.png exists already" in capsys.readouterr().err
  assert mask.read_text() == "mine"
  run_as_program(file, path, monkeypatch, "--overwrite")
  with Image.open(mask) as written:
    assert written.size == (70, 37)


def write_animation(path):
  frames = [Image.fromarray(one) for one in pictures(2, 9, 9)]
  frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def write_deep(path):
  deep = np.full((9, 9), 32768, np.uint16)
  Image.fromarray(deep).save(path, format="PNG")


BAD = {
  "deep": (write_deep, "has more than 8 bits a channel (uint16)"),
  "animation": (write_animation, "has several frames or pages"),
  "postscript": (
    lambda path: Image.new("RGB", (9, 9)).save(path, format="EPS"),
    "is PostScript, a program that is not run here",
  ),
  "bomb": (
    lambda path: Image.new("1", (20000, 20000)).save(path, format="PNG"),
    "is too large",
  ),
  "cut": (
    lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"),
    "cannot be read as a picture",
  ),
  "empty": (lambda path: path.touch(), "is empty"),
  "video": (
    lambda path: path.write_bytes(b"\0\0\0\x14ftypisom\0\0\0\0isom"),
    "is a video (MP4 or QuickTime); extract its frames: ffmpeg -i",
  ),
  "heic": (
    lambda path: path.write_bytes(b"\0\0\0\x14ftypheic\0\0\0\0mif1"),
    "is a HEIC picture",
  ),
  "drawing": (lambda path: path.write_text("<svg xmlns='x'/>"), "is an SVG"),
  "document": (lambda path: path.write_bytes(b"%PDF-1.7\n"), "is a PDF"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_one_paragraph_as_in_predict(
  file, tmp_path, monkeypatch, capsys, kind
):
  write, message = BAD[kind]
  path = tmp_path / "street.png"
  write(path)
  with pytest.raises(SystemExit) as ended:
    run_as_program(file, path, monkeypatch)
  assert ended.value.code == 1
  shown = capsys.readouterr()
  assert shown.err.count("\n") == 1 and not shown.out
  assert f"{path} {message}" in shown.err
  assert not (tmp_path / "out").exists()
  # What `fcn-jax predict` says of it.
  with pytest.raises(ValueError) as caught:
    picture_files.read(path, white=None, max_pixels=250_000_000)
  assert str(caught.value) in shown.err


def bytes_of(image, image_format):
  buffer = io.BytesIO()
  image.save(buffer, format=image_format)
  return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "GIF"])
def test_threads_have_limits_of_their_own(image_format):
  content = bytes_of(Image.fromarray(pictures(1, 40, 50)[0]), image_format)
  before = Image.MAX_IMAGE_PIXELS
  both = threading.Barrier(2)

  def read(max_megapixels):
    sizes = []
    for _ in range(20):
      both.wait(timeout=60)
      try:
        picture = fcn.inference.exported.read_picture(
          content, max_megapixels=max_megapixels
        )
        sizes.append(picture.shape[:2])
      except fcn.inference.exported.TooLarge:
        sizes.append(None)
    return sizes

  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    small, large = threads.map(read, (0.0019, 0.002))
  assert small == [None] * 20
  assert large == [(40, 50)] * 20
  assert before == Image.MAX_IMAGE_PIXELS


def test_pillow_s_own_limit_does_not_count(monkeypatch):
  content = bytes_of(Image.fromarray(pictures(1, 40, 50)[0]), "PNG")
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  assert fcn.inference.exported.read_picture(content).shape == (40, 50, 3)


@pytest.mark.parametrize("kind", ["deep", "animation", "postscript", "heic"])
def test_kinds_that_are_not_read_are_told_from_broken_files(tmp_path, kind):
  BAD[kind][0](tmp_path / "file")
  content = (tmp_path / "file").read_bytes()
  with pytest.raises(fcn.inference.exported.UnreadKind):
    fcn.inference.exported.read_picture(content)


@pytest.mark.parametrize("kind", ["cut", "empty"])
def test_broken_files_are_not_of_another_kind(tmp_path, kind):
  BAD[kind][0](tmp_path / "file")
  with pytest.raises(ValueError) as caught:
    fcn.inference.exported.read_picture((tmp_path / "file").read_bytes())
  others = fcn.inference.exported.UnreadKind, fcn.inference.exported.TooLarge
  assert not isinstance(caught.value, others)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_deep_grey_is_scaled_as_in_predict(tmp_path, value):
  path = tmp_path / "deep.png"
  Image.fromarray(np.full((9, 9), value * 257, np.uint16)).save(path)
  found = fcn.inference.exported.read_picture(path.read_bytes(), white=65535)
  np.testing.assert_array_equal(found, np.full((9, 9, 3), value))


def test_the_file_says_what_it_is(file):
  loaded = fcn.inference.load_exported(file)
  assert loaded.class_names == NAMES
  np.testing.assert_array_equal(loaded.palette, PALETTE)
  assert (loaded.resize, loaded.metadata["step"]) == (0.5, 7)
  assert loaded.metadata["jax"] == jax.__version__
  assert {"cpu", "cuda", "tpu"} <= set(loaded.metadata["platforms"])


def test_parameters_are_in_the_file_once(model_and_variables, file):
  _, variables = model_and_variables
  num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
  with zipfile.ZipFile(file) as content:
    stored = {one.filename: one.file_size for one in content.infolist()}
  # But for the sources of the program: programs, headers and metadata.
  rest = sum(size for name, size in stored.items() if not name.endswith(".py"))
  assert num_bytes < rest < num_bytes + 180_000


def test_nothing_is_compressed_pickled_or_outside(file):
  with zipfile.ZipFile(file) as content:
    for member in content.infolist():
      assert member.compress_type == zipfile.ZIP_STORED
      assert ".." not in member.filename
      assert not member.filename.startswith("/")


@pytest.mark.parametrize(
  "images",
  [
    np.zeros((32, 32, 3), np.uint8),
    np.zeros((1, 32, 32, 4), np.uint8),
    np.zeros((1, 32, 32, 3), np.float32),
    np.zeros((1, 0, 32, 3), np.uint8),
  ],
)
def test_other_images_are_refused(file, images):
  with pytest.raises(ValueError, match=r"\[N, H, W, 3\] uint8"):
    fcn.inference.load_exported(file).predict(images)


def check_refused(path):
  with pytest.raises(ValueError, match="export it again") as caught:
    fcn.inference.load_exported(path)
  assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(file, tmp_path):
  content = file.read_bytes()
  path = tmp_path / "network.zip"
  for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
    path.write_bytes(content[: round(share * len(content))])
    check_refused(path)


def test_a_flipped_bit_is_found(file, tmp_path):
  content = file.read_bytes()
  path = tmp_path / "network.zip"
  rng = np.random.default_rng(0)
  with zipfile.ZipFile(file) as archive:
    members = [
      member
      for member in archive.infolist()
      if not member.filename.endswith(".py")  # Not read by `load_exported`.
    ]
  for member in members:
    for part in ("head", "data"):
      begin = member.header_offset + 30 + len(member.filename)
      begin += 20 if member.filename.endswith(".npy") else 0
      length = (
        min(128, member.file_size) if part == "head" else member.file_size
      )
      damaged = bytearray(content)
      damaged[begin + rng.integers(length)] ^= 1 << rng.integers(8)
      path.write_bytes(damaged)
      check_refused(path)


def test_a_shape_that_was_shrunk_is_found(file, tmp_path):
  content = file.read_bytes()
  path = tmp_path / "network.zip"
  path.write_bytes(content.replace(b"(3, 3, 96, 96)", b"(3, 3, 96, 66)", 1))
  assert path.read_bytes() != content
  check_refused(path)


def replaced(file, path, changed):
  """Writes the file with other contents of some members."""
  with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
    for name in old.namelist():
      new.writestr(name, changed.get(name, old.read(name)))
  return path


def test_a_file_of_another_kind_is_refused(file, tmp_path):
  text = tmp_path / "notes.txt"
  text.write_text("Not a zip file.")
  check_refused(text)
  arrays = tmp_path / "arrays.npz"
  np.savez(arrays, weights=np.zeros(3))
  check_refused(arrays)
  with zipfile.ZipFile(file) as archive:
    metadata = json.loads(archive.read("metadata.json"))
  metadata["format"] = "fcn_jax exported network 2"
  changed = {"metadata.json": json.dumps(metadata)}
  check_refused(replaced(file, tmp_path / "newer.zip", changed))
  changed = {"metadata.json": "[]"}
  check_refused(replaced(file, tmp_path / "empty.zip", changed))
  # As a program of another time may look to JAX.
  changed = {"classes.jax_export": b"another time"}
  check_refused(replaced(file, tmp_path / "old.zip", changed))


def test_arrays_of_objects_are_not_unpickled(file, tmp_path):
  name = "variables/params/conv1_1/bias.npy"
  pickled = tmp_path / "pickled.npy"
  np.save(pickled, np.array([{}], object), allow_pickle=True)
  changed = {name: pickled.read_bytes()}
  check_refused(replaced(file, tmp_path / "network.zip", changed))


def test_a_missing_file_is_missing(tmp_path):
  with pytest.raises(FileNotFoundError):
    fcn.inference.load_exported(tmp_path / "network.zip")


def test_a_file_is_never_replaced(model_and_variables, tmp_path):
  path = tmp_path / "network.zip"
  path.write_text("mine")
  with pytest.raises(ValueError, match="exists already"):
    export(path, *model_and_variables)
  assert path.read_text() == "mine"
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_failed_export_leaves_nothing(
  model_and_variables, tmp_path, monkeypatch
):
  def fail(*_, **__):
    raise OSError("no space left")

  monkeypatch.setattr(np.lib.format, "write_array", fail)
  with pytest.raises(OSError, match="no space left"):
    export(tmp_path / "network.zip", *model_and_variables)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"class_names": NAMES[:3]}, "3 class_names for 4 classes"),
    ({"palette": PALETTE[:3]}, r"\[4, 3\] uint8"),
    ({"palette": PALETTE.astype(np.int64)}, r"\[4, 3\] uint8"),
    ({"resize": 0.0}, "above 0"),
  ],
)
def test_what_does_not_fit_the_classes_is_refused(
  model_and_variables, tmp_path, options, message
):
  options = {"class_names": NAMES, "palette": PALETTE, **options}
  with pytest.raises(ValueError, match=message):
    fcn.inference.export(
      tmp_path / "network.zip", *model_and_variables, **options
    )


def test_a_network_of_one_class_is_refused(model_and_variables, tmp_path):
  model, variables = model_and_variables
  with pytest.raises(ValueError, match="one class; an exported network"):
    export(tmp_path / "network.zip", model.clone(num_classes=1), variables)


def test_fractions_are_scaled_by_the_white_that_is_given(tmp_path):
  path = tmp_path / "fractions.tif"
  Image.fromarray(np.linspace(0, 1, 9, dtype=np.float32)[None]).save(path)
  with pytest.raises(ValueError, match="go from 0 to 1; .*, or give --white"):
    picture_files.read(path, white=None, max_pixels=9)
  found = picture_files.read(path, white=1, max_pixels=9)
  np.testing.assert_array_equal(
    found[0, :, 0], np.round(np.linspace(0, 255, 9))
  )


@pytest.mark.long
def test_pictures_of_many_sizes_share_programs(model_and_variables, tmp_path):
  model, variables = model_and_variables
  path = export(tmp_path / "network.zip", model, variables)
  network = fcn.inference.load_exported(path)
  sizes = [(n, m) for n in (40, 70, 100, 130) for m in (50, 110)]
  served = network.for_sizes(sizes, max_programs=2)
  assert len(served.shapes) == 2 and network.shapes == []
  served.warm_up()
  program = served._programs["classes"]
  before = program._cache_size()
  found = {}
  for size in sizes:
    assert served.fits(size)
    found[size] = served.segment(pictures(1, *size)[0])
  assert program._cache_size() == before
  for size in sizes[::3]:
    image = pictures(1, *size)
    expected = np.asarray(fcn.inference.predict(model, variables, image)[0])
    assert np.mean(found[size] != expected) < 1e-3
    assert len(np.unique(expected)) > 1
  assert not served.fits((200, 200))
  assert served.segment(pictures(1, 10, 200)[0]).shape == (10, 200)


@pytest.mark.slow
def test_resized_pictures_share_programs(file):
  network = fcn.inference.load_exported(file)  # It sees half of each side.
  sizes = [(90, 70), (70, 190), (190, 80), (130, 120)]
  served = network.for_sizes(sizes, max_programs=1)
  assert len(served.shapes) == 1
  served.warm_up()
  before = served._programs["probabilities"]._cache_size()
  images = [pictures(1, *size)[0] for size in sizes[:2]]
  found = list(map(served.segment, images))
  assert served._programs["probabilities"]._cache_size() == before
  # These are compiled each by itself.
  for image, classes in zip(images, found, strict=True):
    assert np.mean(classes != network.segment(image)) < 1e-3

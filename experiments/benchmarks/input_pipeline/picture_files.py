"""Files for the benchmark of the input pipeline, from a folder or generated."""

import pathlib

import numpy as np
from PIL import Image

import fcn_jax as fcn

# With CamVid's void, which counts as a class in the benchmark.
NUM_CLASSES = 12


def find(folder: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Pictures of a folder's train/ with their masks in trainannot/."""
  pictures = sorted(
    path
    for path in folder.glob("train/*")
    if path.suffix.lower() in (".jpg", ".jpeg", ".png")
  )
  pairs = [
    (path, folder / "trainannot" / f"{path.stem}.png") for path in pictures
  ]
  missing = [str(mask) for _, mask in pairs if not mask.exists()]
  if missing or not pairs:
    raise ValueError(
      f"{folder} must hold pictures in train/ and their masks in trainannot/; "
      + (f"there is no {missing[0]}" if missing else "there is no picture")
    )
  return pairs


def make(folder: pathlib.Path, count: int) -> None:
  """Writes pictures of 480x360 pixels that are about as detailed as photos.

  JPEG files of about 50 kB and PNG masks of about 5 kB, as in CamVid.
  """
  (folder / "train").mkdir()
  (folder / "trainannot").mkdir()
  for number in range(count):
    generator = np.random.default_rng(number)
    picture = sum(
      0.65**octave * _noise(generator, 3 * 2**octave, 3) for octave in range(7)
    )
    picture = 255 * (picture - picture.min()) / np.ptp(picture)
    # The class of a pixel is the number of the largest of several smooth
    # fields.
    hills = [_noise(generator, 9, 1)[..., 0] for _ in range(NUM_CLASSES)]
    mask = np.argmax(hills, axis=0)
    name = f"{number:04d}"
    Image.fromarray(picture.astype(np.uint8)).save(
      folder / "train" / f"{name}.jpg", quality=90
    )
    Image.fromarray(mask.astype(np.uint8)).save(
      folder / "trainannot" / f"{name}.png"
    )


def _noise(
  generator: np.random.Generator, cells: int, channels: int
) -> np.ndarray:
  """Returns smooth noise, [360, 480, channels] float32."""
  coarse = generator.integers(
    256, size=(cells, cells, channels), dtype=np.uint8
  )
  image = Image.fromarray(coarse if channels > 1 else coarse[..., 0])
  image = image.resize((480, 360), Image.Resampling.BICUBIC)
  return np.asarray(image, np.float32).reshape(360, 480, channels)


class Source:
  """The files as a source of examples for `fcn_jax.data.pipeline`."""

  def __init__(self, pairs: list[tuple[pathlib.Path, pathlib.Path]]):
    self._pairs = pairs

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> fcn.data.Example:
    picture, mask = self._pairs[index]
    return fcn.data.Example(
      image=fcn.data.files.decoding.decode_picture(picture.read_bytes()),
      label=fcn.data.files.decoding.decode_mask(mask.read_bytes()),
      name=picture.name,
    )

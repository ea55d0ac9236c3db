"""The command that an exported network is, `python network.zip PICTURES`.

Every exported file has a copy of this module, too.
"""

import argparse
import functools
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
from PIL import Image

from fcn_jax import reprs
from fcn_jax.inference import buckets
from fcn_jax.inference import picture_files


def main(
  network_file: pathlib.Path,
  load: Callable[[pathlib.Path], Any],
  arguments: Sequence[str] | None = None,
) -> None:
  """Writes the classes of pictures.

  Args:
    network_file: the file that holds the network.
    load: `exported.load`.
    arguments: of the command line; those of the process if None.
  """
  try:
    _segment_files(network_file, load, _options(network_file.name, arguments))
  except (OSError, ValueError) as error:
    print(f"error: {reprs.printable(error)}", file=sys.stderr)
    raise SystemExit(1) from error


def _options(program, arguments):
  parser = argparse.ArgumentParser(
    prog=f"python {program}",
    description="Writes the classes of each picture to OUT/classes/NAME.png.",
  )
  parser.add_argument(
    "pictures", nargs="+", help="files, folders or patterns in quotes"
  )
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    default=pathlib.Path("segmented"),
    help="folder for the results (default: %(default)s)",
  )
  parser.add_argument(
    "--overlay",
    action="store_true",
    help="also paint the pictures: OUT/overlays/NAME.jpg",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace results that exist"
  )
  parser.add_argument(
    "--white",
    type=float,
    help="the value of white in pictures of more than 8 bits a channel",
  )
  parser.add_argument(
    "--max-megapixels",
    type=float,
    default=250.0,
    help="larger pictures are refused (default: %(default)s)",
  )
  parser.add_argument(
    "--max-programs",
    type=int,
    default=buckets.MAX_PROGRAMS,
    help="pictures of more sizes share arrays, as each shape is compiled "
    "(default: %(default)s)",
  )
  parser.add_argument(
    "--cache",
    type=pathlib.Path,
    help="folder that keeps compiled programs for the next time",
  )
  return parser.parse_args(arguments)


def _segment_files(network_file, load, options):
  if options.out.exists() and not options.out.is_dir():
    raise ValueError(f"{options.out} is a file; give a folder as --out.")
  read = functools.partial(
    picture_files.read,
    white=options.white,
    max_pixels=picture_files.max_pixels(options.max_megapixels),
  )
  found = picture_files.find(options.pictures, options.out)
  targets = [_targets(one, options) for one in found]
  picture_files.check(
    f"{reprs.path(path)} exists already (give another --out, or --overwrite)"
    for paths in targets
    for path in paths
    if path.exists() and not options.overwrite
  )
  # All are read before anything is written.
  faults, sizes = [], []
  for one in found:
    try:
      sizes.append(read(one.path).shape[:2])
    except ValueError as error:
      faults.append(f"{reprs.path(one.path)} {error}")
  picture_files.check(faults)
  if options.cache is not None:
    jax.config.update("jax_compilation_cache_dir", str(options.cache))
  network = load(network_file).for_sizes(
    sizes, max_programs=options.max_programs
  )
  for one, paths in zip(found, targets, strict=True):
    picture = read(one.path)
    classes = network.segment(picture)
    mask = Image.fromarray(classes)
    mask.putpalette(network.palette.tobytes())
    images = [(mask, "PNG")]
    if options.overlay:
      images.append((network.overlay(picture, classes), "JPEG"))
    for (image, kind), path in zip(images, paths, strict=True):
      _write(image, kind, path, options.overwrite)
      print(reprs.path(path))


def _targets(picture, options):
  paths = [options.out / "classes" / f"{picture.name}.png"]
  if options.overlay:
    paths.append(options.out / "overlays" / f"{picture.name}.jpg")
  return paths


def _write(image, kind, path, overwrite):
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  buffer = io.BytesIO()
  image.save(buffer, format=kind)
  with tempfile.NamedTemporaryFile(
    dir=path.parent, prefix=".partial-", delete=False
  ) as file:
    partial = pathlib.Path(file.name)
    try:
      file.write(buffer.getvalue())
      file.close()
      partial.chmod(0o644)
      if not overwrite:
        path.open("xb").close()  # It may have come meanwhile.
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)

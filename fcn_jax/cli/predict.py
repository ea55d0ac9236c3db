"""Predicts the classes of pictures of any size with a trained network.

    fcn-jax predict PICTURES... --workdir RUN --out DIR

PICTURES are files, folders (with all pictures in them and in their subfolders)
or patterns in quotes, such as 'shots/**/*.jpg'. RUN is the work folder of a
run. For each picture, the command writes to DIR:

    classes/NAME.png        class indices, with the palette of the classes
    overlays/NAME.jpg       the picture, painted, with a legend; of 2048 pixels
                            a side at most
    probabilities/NAME.npz  with --probabilities: `probabilities`, [height,
                            width, classes] float16, and `class_names`

NAME is the name of the file without its suffix; for a folder, it includes the
subfolders. Classes and probabilities have the size of the picture as it is
displayed, rotated according to its EXIF data. The command overwrites files only
with --overwrite, and it checks all pictures before it writes anything. If it
ends early, the same command continues with the pictures that are missing. A
picture that cannot be read is an error; with --skip-bad the command lists such
pictures and predicts the others.

Exit status: 0 if all pictures were predicted, 3 if --skip-bad left some out, 1
for an error that the command found before it wrote anything, 130 after Ctrl-C.

The network is compiled for each shape of its arrays, which takes seconds.
Pictures of one size share a program; those of more than --max-programs sizes
share a few larger arrays. The network does not see the rest of an array.

The frames of a video are pictures: `ffmpeg -i in.mp4 frames/%06d.png` writes
them, and the page "Your own pictures" of the documentation makes a video of the
results.

A picture that is larger than a tile is predicted tile by tile. The result is
the same as in one piece, since the network sees enough around each tile, and
the memory does not depend on the size of the picture. With --margin the network
sees less around a tile, which is faster but not exact; the command then
measures on some tiles how many pixels change, and prints their share. With
--blending gaussian the network sees nothing around a tile; tiles overlap by
half, and their probabilities are averaged with Gaussian weights. The memory is
then that of one row of tiles: height of a tile x width of the picture x classes
x 4 bytes.

A network that was trained on resized pictures sees them resized by the same
factor, times each of --scales; its probabilities are interpolated to the size
of the picture.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tqdm
import tyro

import fcn_jax as fcn
from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.cli import devices as devices_lib
from fcn_jax.cli import errors
from fcn_jax.cli import predict_files
from fcn_jax.inference import picture_files
from fcn_jax.runs import environment
from fcn_jax.runs import folder as folder_lib
from fcn_jax.runs import processes as processes_lib
from fcn_jax.runs import trained_model
from fcn_jax.runs import watch

# The exit status if pictures were left out.
LEFT_OUT = 3


@dataclasses.dataclass(frozen=True)
class Options:
  """What to predict, and how."""

  pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
  """Files, folders or patterns."""
  workdir: pathlib.Path
  """Work folder of the run that trained the network."""
  out: pathlib.Path
  """Folder for the results; made if it does not exist."""
  checkpoint: str = "best"
  """best (by validation mean IU; the newest if none was validated), latest, or
  the number of a step."""
  probabilities: bool = False
  """Also write the probabilities of all classes. They are large: 2 bytes for
  each class and pixel, before compression."""
  scales: tuple[float, ...] = (1.0,)
  """Factors on the size of the pictures; probabilities are averaged."""
  flip: bool = False
  """Also average over the mirrored pictures."""
  quarter_turns: bool = False
  """Also average over the pictures turned by 90, 180 and 270 degrees; with
  --flip over eight views. For networks that were trained with turns."""
  tile_size: int = fcn.inference.tiling.TILE_SIZE
  """Side in pixels of the largest square that the network sees at once. Larger
  tiles need more memory (with the square of the side) but less time."""
  max_programs: int = fcn.inference.buckets.MAX_PROGRAMS
  """For how many shapes of arrays the network is compiled. Pictures of more
  sizes share arrays, in part empty; the results are the same. There are more
  where a shared array would have more pixels than the largest picture."""
  margin: int | None = None
  """Pixels that the network sees around a tile. Default: all that matter, so
  that the result is exact."""
  blending: fcn.inference.tiling_plan.Blending = "none"
  """Exact tiles side by side, or tiles that overlap by half and are averaged
  with Gaussian weights, also for group normalization."""
  num_devices: int | None = None
  """Devices that predict at the same time, each a tile of its own. The
  results are the same. Default: all; on a CPU, one."""
  white: float | None = None
  """The value of white in pictures of more than 8 bits a channel, or of
  fractions. `fcn-jax check-data` reports the one for the training pictures."""
  overwrite: bool = False
  """Replace results that exist."""
  skip_bad: bool = False
  """Leave out pictures that cannot be read; otherwise they are an error."""
  max_megapixels: float = 250.0
  """Larger pictures are refused; each megapixel takes about 10 MB, and with
  blending more, see above."""
  processes: processes_lib.Processes = processes_lib.Processes()
  """Each process predicts its share of the pictures."""


class Job(NamedTuple):
  """A picture that can be predicted.

  Attributes:
    picture: where it is, and its name.
    outputs: files to write.
    size: height and width.
    num_tiles: number of tiles that it is cut into.
    replaces: whether its files may replace others.
    is_done: whether a command that ended early has written them.
  """

  picture: picture_files.Picture
  outputs: predict_files.Outputs
  size: tuple[int, int]
  num_tiles: int
  replaces: bool
  is_done: bool


def read(options: Options, picture: picture_files.Picture) -> np.ndarray:
  """A picture, [H, W, 3] uint8; a `ValueError` if it cannot be read."""
  return picture_files.read(
    picture.path,
    white=options.white,
    max_pixels=picture_files.max_pixels(options.max_megapixels),
  )


def tiling(options: Options, network: fcn.runs.TrainedModel) -> dict[str, Any]:
  """The arguments of `inference.predict_tiled` for a network."""
  resize = network.config.data.resize
  return {
    "tile_size": options.tile_size,
    "scales": tuple(resize * scale for scale in options.scales),
    "flip": options.flip,
    "quarter_turns": options.quarter_turns,
  }


def choose_buckets(
  options: Options, network: fcn.runs.TrainedModel, jobs: Sequence[Job]
) -> fcn.inference.buckets.Buckets:
  """The shapes of the arrays that the pictures share."""
  return fcn.inference.choose_buckets(
    network.model,
    [job.size for job in jobs],
    max_programs=options.max_programs,
    margin=options.margin,
    blending=options.blending,
    **tiling(options, network),
  )


def look_at(
  options: Options,
  network: fcn.runs.TrainedModel,
  pictures: Sequence[picture_files.Picture],
  begun: set[str],
) -> tuple[list[Job], list[str]]:
  """Reads all pictures, and plans what to do with them.

  Args:
    options: of the command.
    network: that predicts.
    pictures: all of this process.
    begun: names of pictures whose files are from a command that ended early.

  Returns:
    The jobs, and what is wrong with the pictures that are left out.

  Raises:
    ValueError: a picture cannot be read (with --skip-bad: all of them) or
      cannot be predicted with these options, or a file to write exists and
      may not be replaced.
  """
  results = [
    predict_files.outputs(picture, options.out, options.probabilities)
    for picture in pictures
  ]
  picture_files.check(
    f"{reprs.path(path)} exists already (give another --out, or --overwrite)"
    for picture, paths in zip(pictures, results, strict=True)
    for path in paths
    if not (options.overwrite or picture.name in begun)
    and path is not None
    and path.exists()
  )
  jobs, faults = [], []
  for picture, paths in zip(
    tqdm.tqdm(pictures, "looking", unit="picture", disable=None, delay=0.5),
    results,
    strict=True,
  ):
    try:
      image = read(options, picture)
    except ValueError as error:
      faults.append(f"{reprs.path(picture.path)} {error}")
      continue
    plan = fcn.inference.tiling_plan.Plan.make(
      network.model,
      image,
      margin=options.margin,
      blending=options.blending,
      **tiling(options, network),
    )
    size = image.shape[:2]
    num_tiles = len(plan.windows((slice(0, size[0]), slice(0, size[1]))))
    is_begun = picture.name in begun
    jobs.append(
      Job(
        picture,
        paths,
        size,
        num_tiles,
        replaces=options.overwrite or is_begun,
        is_done=is_begun and predict_files.are_done(paths, picture.path),
      )
    )
  if not (options.skip_bad and jobs):
    picture_files.check(faults)
  return jobs, faults


def facts_of(
  options: Options, network: fcn.runs.TrainedModel
) -> dict[str, Any]:
  """What the results of a picture depend on."""
  return {
    "workdir": str(options.workdir.resolve()),
    "run": folder_lib.read_id(options.workdir),
    "step": network.step,
    "probabilities": options.probabilities,
    "scales": options.scales,
    "flip": options.flip,
    "quarter_turns": options.quarter_turns,
    "tile_size": options.tile_size,
    "margin": options.margin,
    "blending": options.blending,
    "white": options.white,
  }


def check_disk(options: Options, jobs: Sequence[Job], num_classes: int) -> None:
  """Raises a `ValueError` if the results will not fit on the disk."""
  pixel_bytes = 1 + 2 * num_classes * options.probabilities
  sizes = [job.size for job in jobs if not job.is_done]
  pixels = [height * width for height, width in sizes]
  # The results of one picture take space twice: as arrays and as files.
  needed = (sum(pixels) + max(pixels, default=0)) * pixel_bytes
  free = environment.free_bytes(options.out)
  if free < needed:
    raise ValueError(
      f"{options.out} has room for {free / 1e9:.2f} GB, but the results may "
      f"take {needed / 1e9:.2f} GB: make room, or give another --out."
    )


def predict(
  options: Options,
  network: fcn.runs.TrainedModel,
  buckets: fcn.inference.buckets.Buckets,
  job: Job,
) -> np.ndarray:
  """Predicts one picture, and writes its files.

  Meanwhile, all large arrays except the picture itself are on the disk.

  Returns:
    [256] pixels of each class.
  """
  image = read(options, job.picture)
  progress = functools.partial(
    tqdm.tqdm,
    desc=reprs.shown(job.picture.path.name),
    unit="tile",
    leave=False,
    disable=True if job.num_tiles == 1 else None,
  )
  shape = image.shape[:2]
  with (
    writing.explained(job.outputs.classes),
    writing.scratch(options.out, "predict") as folder,
  ):
    probabilities = None
    if options.probabilities:
      num_classes = fcn.models.heads.num_classes(network.model)
      probabilities = predict_files.array_on_disk(
        folder / "probabilities", (*shape, num_classes), np.float16
      )
    classes = fcn.inference.predict_tiled(
      network.model,
      network.variables,
      image,
      margin=options.margin,
      blending=options.blending,
      out=predict_files.array_on_disk(folder / "classes", shape, np.uint8),
      probabilities_out=probabilities,
      progress=progress,
      devices=devices_lib.of(options.num_devices),
      buckets=buckets,
      **tiling(options, network),
    )
    files = predict_files.Outputs(
      folder / "classes.png", folder / "overlay.jpg", None
    )
    predict_files.write_classes(files.classes, classes, network.palette)
    fcn.visualize.labelled_overlay(
      image,
      classes,
      network.class_names,
      network.palette,
      path=files.overlay,
    )
    if probabilities is not None:
      files = files._replace(probabilities=folder / "probabilities.npz")
      np.savez_compressed(
        files.probabilities,
        probabilities=probabilities,
        class_names=np.array(network.class_names),
      )
    for file, path in zip(files, job.outputs, strict=True):
      if file is not None:
        predict_files.publish(file, path, overwrite=job.replaces)
    # A row at a time: NumPy counts in copies of 8 bytes a pixel.
    return sum(np.bincount(row, minlength=256) for row in classes)


def margin_report(
  options: Options, network: fcn.runs.TrainedModel, jobs: Sequence[Job]
) -> str:
  """How many pixels a margin that is not exact has changed."""
  job = max(jobs, key=lambda job: job.num_tiles)
  if job.num_tiles == 1:
    return "margin: no picture is larger than a tile; the result is exact."
  num_tiles = min(4, job.num_tiles)
  share = fcn.inference.disagreement(
    network.model,
    network.variables,
    read(options, job.picture),
    margin=options.margin,
    num_tiles=num_tiles,
    **tiling(options, network),
  )
  exact = fcn.inference.exact_margin(network.model)
  return (
    f"margin of {options.margin} pixels: {100 * share:.3f} % of the pixels of "
    f"{num_tiles} tiles of {reprs.shown(job.picture.path.name)} differ from "
    f"the exact prediction (margin {exact})."
  )


def table(network: fcn.runs.TrainedModel, counts: np.ndarray) -> str:
  """The share of each class of all pixels."""
  names = [reprs.shown(name) for name in network.class_names]
  width = max(map(len, names))
  return "\n".join(
    f"{name:{width}}  {100 * count / counts.sum():6.2f} %"
    for name, count in zip(names, counts, strict=False)
  )


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, and predicts.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options,
    prog="fcn-jax predict",
    description=__doc__,
    args=arguments,
    config=(tyro.conf.OmitArgPrefixes,),
  )
  with platforms.known(), contextlib.ExitStack() as resources:
    with errors.explained():
      picture_files.max_pixels(options.max_megapixels)
      processes_lib.start(options.processes, saves=False)
      which = trained_model.parse_which(options.checkpoint)
      if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out} is a file; give a folder as --out.")
      resources.enter_context(folder_lib.held(options.out))
      devices_lib.of(options.num_devices)
      pictures = picture_files.find(options.pictures, options.out)
      network = fcn.runs.load(options.workdir, which)
      network.check_is_trained()
      network.check_sees_pictures()
      facts = facts_of(options, network)
      begun = predict_files.names_begun(options.out, facts)
      own = processes_lib.own_share(pictures)
      jobs, left_out = look_at(options, network, own, begun)
      buckets = choose_buckets(options, network, jobs)
      check_disk(options, jobs, fcn.models.heads.num_classes(network.model))
      # Nothing is written before all have looked.
      processes_lib.gather()
      options.out.mkdir(parents=True, exist_ok=True)
      if processes_lib.is_first():
        names = begun | {picture.name for picture in pictures}
        resources.enter_context(
          predict_files.journal(options.out, facts, names)
        )
      processes_lib.gather()
    if begun and processes_lib.is_first():
      print(
        f"{reprs.path(options.out)}: continuing a command that ended early."
      )
    network = dataclasses.replace(
      network, variables=jax.device_put(network.variables)
    )
    counts = np.zeros(256, np.int64)
    with (
      errors.explained(OSError),
      tqdm.tqdm(
        jobs,
        "predicting",
        unit="picture",
        disable=None if processes_lib.is_first() else True,
      ) as bar,
    ):
      for job in bar:
        counts += (
          predict_files.count(job.outputs.classes)
          if job.is_done
          else predict(options, network, buckets, job)
        )
    num_files = sum(path is not None for job in jobs for path in job.outputs)
    counts, num_files, num_pictures = (
      sum(map(np.asarray, processes_lib.gather(one)))
      for one in (counts.tolist(), num_files, len(jobs))
    )
    left_out = sum(processes_lib.gather([*map(str, left_out)]), [])
    if not processes_lib.is_first():
      return
    if options.margin is not None:
      print(margin_report(options, network, jobs))
  print(table(network, counts))
  print(
    f"{num_pictures} pictures, {num_files} files in {reprs.path(options.out)}; "
    f"network of step {network.step}."
  )
  if left_out:
    lines = "\n".join(f"  {reprs.path(fault)}" for fault in left_out)
    print(f"left out {len(left_out)} bad pictures:\n{lines}", file=sys.stderr)
    sys.exit(LEFT_OUT)

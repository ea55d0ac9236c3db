"""Draws the pictures of the documentation's gallery, docs/gallery.

    fcn-jax train shapes --workdir runs/gallery
    python -m experiments.gallery

All pictures are of the generated data set shapes.
"""

import dataclasses
import pathlib
import sys

import jax
import numpy as np
import PIL.Image
import tyro

import fcn_jax as fcn
from fcn_jax.cli import errors
from fcn_jax.runs import folder


@dataclasses.dataclass(frozen=True)
class Options:
  """Which run to show, and where to write."""

  workdir: pathlib.Path = pathlib.Path("runs/gallery")
  """Work folder of a finished run of the preset shapes."""
  out: pathlib.Path = pathlib.Path("docs/gallery")
  """Folder for the pictures. Those that are there are replaced."""


# Of the validation split.
_EXAMPLES = (3, 11, 27)


def main(arguments=None):
  options = tyro.cli(Options, description=__doc__, args=arguments)
  with errors.explained():
    trained = fcn.runs.load(options.workdir)
  dataset = fcn.data.load(
    "shapes",
    split="validation",
    prepared_dir=trained.config.data.prepared_dir,
  )
  options.out.mkdir(parents=True, exist_ok=True)
  examples = [dataset.source[index] for index in _EXAMPLES]
  classes = [
    np.asarray(
      fcn.inference.predict(
        trained.model, trained.variables, example.image[None]
      )[0]
    )
    for example in examples
  ]
  background = fcn.visualize.background_of(dataset.class_names)
  _overlays(options.out, dataset, examples, classes, background)
  _predictions(options.out, dataset, examples, classes)
  _samplers(options.out, trained, examples[0])
  confusion = sum(
    np.asarray(
      fcn.metrics.confusion_matrix(
        example.label[None], found[None], num_classes=dataset.num_classes
      )
    )
    for example, found in zip(examples, classes, strict=True)
  )
  fcn.visualize.confusion_matrix(
    confusion, dataset.class_names, path=options.out / "confusion_matrix.png"
  )
  fcn.visualize.training_curves(
    *folder.read_records(options.workdir),
    title="shapes, FCN-8s, vgg_small",
    path=options.out / "curves.png",
  )
  for path in sorted(options.out.glob("*.png")):
    picture = PIL.Image.open(path).convert("RGB")
    # With full colours the files would be large.
    picture.quantize(192).save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def _overlays(out, dataset, examples, classes, background):
  """A picture, bright and dark, with what was predicted."""
  image = examples[0].image
  dark = (image * 0.2).astype(np.uint8)
  painted = [
    fcn.visualize.overlay(
      one, classes[0], dataset.palette, background=background
    )
    for one in (image, dark)
  ]
  _save_row(out / "overlays.png", [image, painted[0], dark, painted[1]])
  large = [
    np.repeat(np.repeat(one, 4, axis=0), 4, axis=1)
    for one in (examples[1].image, classes[1].astype(np.uint8))
  ]
  fcn.visualize.labelled_overlay(
    *large,
    dataset.class_names,
    dataset.palette,
    path=out / "labelled_overlay.png",
  )


def _predictions(out, dataset, examples, classes):
  fcn.visualize.predictions(
    {
      "image": [example.image for example in examples],
      "truth": [example.label for example in examples],
      "prediction": classes,
      "errors": [
        fcn.visualize.errors(example.label, found)
        for example, found in zip(examples, classes, strict=True)
      ],
    },
    dataset.class_names,
    dataset.palette,
    path=out / "predictions.png",
  )


def _samplers(out, trained, example):
  """Which pixels of a picture enter the loss: all others are white."""
  score_map = trained.model.apply(
    trained.variables, example.image[None], train=False
  )
  labels = example.label[None].astype(np.int32)
  row = [example.image]
  grid = {"grid": score_map.grid}
  for sampler, options in (
    (fcn.sampling.places(rate=0.25), grid),
    (fcn.sampling.bernoulli(rate=0.25), grid),
    (fcn.sampling.bernoulli(rate=0.25, unit="pixel"), {}),
    (
      fcn.sampling.near_boundary(rate=0.5, rate_elsewhere=0.05, distance=6),
      {},
    ),
  ):
    weights = np.asarray(sampler.draw(jax.random.key(0), labels, **options))
    weights = weights[0, ..., None]
    row.append(np.where(weights > 0, example.image, np.uint8(255)))
  _save_row(out / "samplers.png", row)


def _save_row(path, pictures):
  """Writes pictures side by side, each pixel twice as large."""
  edge = np.full((pictures[0].shape[0], 2, 3), 255, np.uint8)
  parts = [part for picture in pictures for part in (picture, edge)][:-1]
  row = np.concatenate(parts, axis=1)
  PIL.Image.fromarray(row.repeat(2, axis=0).repeat(2, axis=1)).save(path)


if __name__ == "__main__":
  sys.exit(main())

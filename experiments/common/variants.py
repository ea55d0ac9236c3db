"""Training several arms, with several seeds, and going on where it ended."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import tqdm

import fcn_jax as fcn
import options
import training

FOLDER = "arms"


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way of training.

  Attributes:
    name: for tables, figures and file names.
    images_per_step: images loaded for each step.
    sampler: which pixels enter the loss, see `fcn.sampling`. Arms that share
      one are compiled once.
    cut: (key, batch) -> batch of patches; None for whole images.
  """

  name: str
  images_per_step: int
  sampler: fcn.train.Sampler = fcn.sampling.whole_image
  cut: Callable[[jax.Array, fcn.types.Batch], fcn.types.Batch] | None = None


def result_file(workdir: pathlib.Path, name: str, seed: int) -> pathlib.Path:
  """The JSON file of an arm: `rows`, `confusion` and `temporary_bytes`."""
  return workdir / FOLDER / f"{name}-seed{seed}.json"


def read_results(
  config: options.TrainingOptions, name: str
) -> list[dict[str, Any]]:
  """What each seed of a finished arm found."""
  files = [
    result_file(config.workdir, name, seed) for seed in range(config.num_seeds)
  ]
  return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def batches_of(
  config: options.TrainingOptions,
  arm: Arm,
  splits: training.Data,
  seed: int,
  key: jax.Array,
) -> Iterator[fcn.types.Batch]:
  """Endless batches of images, or of patches cut with `key`."""
  batches = training.train_batches(
    config, splits.train, batch_size=arm.images_per_step, seed=seed
  )
  for step, batch in enumerate(batches):
    if arm.cut:
      batch = arm.cut(jax.random.fold_in(key, step), batch)
    yield batch


def train(
  config: options.TrainingOptions, arms: Sequence[Arm], splits: training.Data
) -> None:
  """Trains FCN-8s in all arms that are not finished yet, and scores it.

  Writes a `result_file` for each arm and seed, last of all: it says that the
  arm is finished.
  """
  (config.workdir / FOLDER).mkdir(exist_ok=True)
  model = fcn.models.FCN(
    splits.train.num_classes,
    backbone=config.backbone,
    stride=8,
    dropout_rate=0.1,
    normalization="batch",
  )
  optimizer = fcn.optimizers.adamw(
    config.learning_rate,
    total_steps=config.steps,
    warmup_steps=config.warmup_steps,
    weight_decay=config.weight_decay,
  )

  @functools.cache
  def make_step(sampler):
    return fcn.train.make_train_step(model, optimizer, sampler=sampler)

  progress = tqdm.tqdm(
    total=len(arms) * config.num_seeds * config.steps,
    unit="step",
    disable=None,
  )
  with progress:
    for arm in arms:
      step = make_step(arm.sampler)
      for seed in range(config.num_seeds):
        file = result_file(config.workdir, arm.name, seed)
        if file.exists():
          progress.update(config.steps)
          continue
        progress.set_description(f"{arm.name}, seed {seed}")
        rows = []

        def on_row(row, rows=rows):
          rows.append(row)
          progress.set_postfix(loss=f"{row['loss']:.3f}")
          progress.update(row["num_steps"])

        keys = jax.random.split(jax.random.key(seed), 3)
        state = fcn.train.create_state(keys[0], model, optimizer)
        make_batches = functools.partial(
          batches_of, config, arm, splits, seed, keys[2]
        )
        temporary_bytes = training.temporary_bytes(
          step, state, next(make_batches()), keys[1]
        )
        state = training.fit(
          step,
          state,
          make_batches,
          keys[1],
          num_steps=config.steps,
          log_every=config.log_every,
          on_row=on_row,
        )
        confusion = training.evaluate(model, state, splits.batches)
        mean_iu = fcn.metrics.scores(confusion).mean_iu
        progress.write(f"{arm.name}, seed {seed}: mean IU {mean_iu:.3f}")
        fcn.runs.records.write_json(
          file,
          {
            "rows": rows,
            "temporary_bytes": temporary_bytes,
            "confusion": confusion.tolist(),
          },
        )

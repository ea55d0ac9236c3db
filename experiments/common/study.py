"""A study trains variants of one network, with several seeds, and compares.

Each variant and seed is a run of the package in `variants/NAME-seedK`, with
checkpoints, TensorBoard and the rest. The same command resumes a study that was
interrupted.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import tyro

from fcn_jax import data
from fcn_jax.cli import compilation_cache
from fcn_jax.cli import errors
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import initial_state
from fcn_jax.runs import placement
from fcn_jax.runs import processes
from fcn_jax.runs import trained_model
from fcn_jax.runs import training

VARIANTS = "variants"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(config_lib.Groups):
  """The options that studies share; each adds its own."""

  num_seeds: int = 2
  """Seeds that each variant is trained with: seed, seed + 1 and so on. A
  later start may ask for more, and trains only the new ones."""

  @classmethod
  def make(cls, name: str, **options: Any) -> Self:
    """Options of a study in runs/NAME."""
    run = config_lib.Run(pathlib.Path("runs", name), log_every=10)
    return cls(run=run).replace(**options)

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    super().check()
    config_lib.at_least_one(self, "num_seeds")
    config_lib.require(
      self.data,
      second_labels=(
        self.data.second_labels is None,
        "left out: studies train networks with one head",
      ),
    )
    config_lib.require(
      self.network,
      auxiliary=(
        not self.network.auxiliary,
        "left out: studies train networks with one head",
      ),
    )
    if self.augmentation.crop_size is None:
      raise ValueError(
        "crop_size is None; studies compare images of one size: give one."
      )

  @property
  def title(self) -> str:
    """Title: the network and the data set."""
    network = self.network
    return f"{self.data.dataset}, FCN-{network.stride}s, {network.backbone}"


class Variant(NamedTuple):
  """One way of training.

  Attributes:
    name: for tables, figures and folders.
    options: of its runs, where they differ from those of the study.
  """

  name: str
  options: Mapping[str, Any]


def parse(
  presets: Mapping[str, tuple[str, Study]],
  name: str,
  description: str,
  arguments: Sequence[str] | None,
) -> Any:
  """Reads the options of a study from the command line.

  Also meets the other processes that take part in it.
  """
  compilation_cache.enable()
  study = tyro.extras.overridable_config_cli(
    presets,
    prog=f"python -m experiments.{name}",
    description=description,
    args=arguments,
    config=(tyro.conf.OmitArgPrefixes,),
  )
  with errors.explained():
    processes.start(study.processes)
  return study


def run_config(study: Study, variant: Variant, seed: int) -> config_lib.Train:
  """The options of the run of a variant with the seed of that number."""
  names = [field.name for field in dataclasses.fields(config_lib.Groups)]
  shared = {name: getattr(study, name) for name in names}
  name = f"{variant.name.replace(' ', '_')}-seed{seed}"
  return config_lib.Train(**shared).replace(
    workdir=study.run.workdir / VARIANTS / name,
    seed=study.run.seed + seed,
    overwrite=False,
    **variant.options,
  )


def check(
  study: Study,
  variants: Sequence[Variant],
  dataset: data.Dataset,
  *,
  experiment: str,
  contents: Sequence[str],
) -> None:
  """Checks that a study can begin or resume.

  Args:
    study: its options, which `Study.check` has checked.
    variants: all of them.
    dataset: the training split.
    experiment: name of the study.
    contents: names of the files that it makes beside the variants.

  Raises:
    ValueError: if an option of a variant is wrong, there are too few images
      or devices, or the work folder is in use.
  """
  check_folder(study, experiment=experiment, contents=contents)
  for variant in variants:
    config = run_config(study, variant, 0)
    config.check()
    placement.make_mesh(config)
    needed = config.data.batch_size
    if needed > len(dataset.source):
      raise ValueError(
        f"variant {variant.name} needs {needed} images a step, but the data "
        f"set has {len(dataset.source)}: choose options with fewer images a "
        "step."
      )
  if variants:
    _check_network(run_config(study, variants[0], 0), dataset.num_classes)


def _check_network(config: config_lib.Train, num_classes: int) -> None:
  """Raises a `ValueError` if the network cannot be made or begun."""
  model = build.model(config, num_classes)
  optimizer = build.optimizer(config.optimizer)
  trained_model.state_template(model, optimizer)
  if config.network.init is not None:
    initial_state.make(config, model, optimizer)


def check_is_alone() -> None:
  """Raises a `ValueError` if several processes take part.

  For studies that also measure on the devices of one process.
  """
  if processes.count() > 1:
    raise ValueError(
      "this study measures on the devices of one process: start only one, with "
      "--distributed off."
    )


def check_folder(
  study: Study, *, experiment: str, contents: Sequence[str]
) -> None:
  """Checks that a study can begin or resume in its work folder.

  Call it before data are prepared, which may take long.

  Raises:
    ValueError: if the folder is in use, also by a program that trains there.
  """
  folder.check(study, experiment=experiment, contents=_all(contents))
  if study.run.overwrite:
    runs = study.run.workdir / VARIANTS
    for steps in runs.glob(f"*/{folder.CHECKPOINTS}"):
      # Refuses if another program is writing there.
      checkpoints.Checkpoints(steps).close()


def claim(study: Study, *, experiment: str, contents: Sequence[str]) -> None:
  """Makes the work folder of a study; see `check`."""
  folder.claim(study, experiment=experiment, contents=_all(contents))


def _all(contents: Sequence[str]) -> tuple[str, ...]:
  return (folder.CONFIG_FILE, VARIANTS, *contents)


def has_ended(config: config_lib.Train) -> bool:
  """Whether a run was trained to the end and wrote its report."""
  # The curves are written last.
  return (config.run.workdir / folder.CURVES_FILE).exists()


def train(study: Study, variants: Sequence[Variant]) -> None:
  """Trains all runs that are not finished; ends the program on a signal."""
  runs = [
    run_config(study, variant, seed)
    for variant in variants
    for seed in range(study.num_seeds)
  ]
  for config in runs:
    # Process 0 decides, as another may not see the newest files yet.
    if processes.gather(has_ended(config))[0]:
      continue
    with errors.ends_of_runs(study):
      with errors.explained():
        prepared = training.prepare(config)
      training.run(prepared)

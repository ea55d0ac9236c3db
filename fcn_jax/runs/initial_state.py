"""The state before the first step: random, or from other runs."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import optax

from fcn_jax import models
from fcn_jax import pretrained
from fcn_jax import train
from fcn_jax.models import input_normalization
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import trained_model


def make(
  config: config_lib.Train,
  model: models.Network,
  optimizer: optax.GradientTransformation,
) -> tuple[train.TrainState, str]:
  """The state before the first step, and a message about it.

  Raises:
    ValueError: if the run to begin with does not exist or does not fit.
  """
  key: jax.Array = build.random_keys(config.run.seed)[0]
  state = train.create_state(key, model, optimizer)
  network = config.network
  if network.init is None:
    begin = "initial parameters: drawn at random."
    return state, "\n".join([begin, *_warnings(model)])
  if isinstance(model, models.LateFusion):
    paths = {"color": network.init, "hha": network.init_hha}
    donors = {
      name: load_donor(config, paths[name], inputs, modality=name)
      for name, inputs in model.modalities
    }
    # Under the names of the modalities, as the network has them.
    source = {}
    for name, donor in donors.items():
      for collection, layers in donor.variables.items():
        source.setdefault(collection, {})[name] = layers
  else:
    paths = {"": network.init}
    donors = {"": load_donor(config, network.init, model.inputs)}
    source = donors[""].variables
  variables, report = pretrained.transplant(source, train.variables(state))
  # The average of the parameters begins with these.
  state = train.state_from(variables, optimizer, model=model)
  origins = "; ".join(
    f"{paths[name]}, step {donor.step} ({_rank(donor)})"
    for name, donor in donors.items()
  )
  lines = [
    f"initial parameters: {origins}",
    str(report),
    *_new_heads(donors, report),
    *_warnings(model, report),
  ]
  return state, "\n".join(lines)


def _rank(donor: trained_model.TrainedModel) -> str:
  if donor.mean_iu is None:
    return "which has no score"
  return f"mean IU {100 * donor.mean_iu:.1f} %"


def _new_heads(
  donors: Mapping[str, trained_model.TrainedModel],
  report: pretrained.Report,
) -> Iterator[str]:
  """Says which layers that score begin anew though the runs have such."""
  new = _layers(report.kept + report.reshaped, models.freezing.is_head)
  donor = next(iter(donors.values()))
  # A classifier's own scores are those of whole pictures.
  if new and not donor.is_classifier:
    names = donor.class_names
    yield (
      f"The head begins anew ({', '.join(new)}): that of "
      f"{donor.config.run.workdir} is for other classes ({len(names)}: "
      f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) or for "
      "another network, and is left out."
    )


def _warnings(
  model: models.Network,
  report: pretrained.Report | None = None,
) -> Iterator[str]:
  """Warns of frozen layers that have learned nothing."""
  freezing = model.freezing
  if report is None:
    if freezing.number:
      yield (
        f"warning: the layers up to {model.frozen} are frozen, but drawn at "
        "random, and stay so: give --init with a trained network, or leave out "
        "--freeze."
      )
    elif freezing.statistics:
      yield (
        "warning: the batch statistics are frozen at their first values, so "
        "nothing is normalized: give --init with a trained network, or leave "
        "out --freeze."
      )
    return
  new = _layers(report.new(), freezing.holds)
  if new:
    yield (
      f"warning: {', '.join(new[:5])}{', ...' if len(new) > 5 else ''} are "
      "frozen, but not from a trained network, at least not wholly: give "
      "--init with one that has these layers, or freeze less."
    )


def _layers(names: Iterable[str], is_meant: Callable[[str], bool]) -> list[str]:
  """Some of the layers of arrays, each once, in order."""
  layers = dict.fromkeys(name.split("/")[-2] for name in names)
  return [layer for layer in layers if is_meant(layer)]


def load_donor(
  config: config_lib.Train,
  workdir: pathlib.Path,
  inputs: input_normalization.InputNormalization,
  *,
  modality: str | None = None,
) -> trained_model.TrainedModel:
  """The model of a run that another run begins with.

  Args:
    config: of the other run.
    workdir: of the run to begin with.
    inputs: how the other run normalizes pixels. Means may differ, as in the
      papers, where nets for other data begin with VGG16.
    modality: of late fusion, for which the run was trained.

  Raises:
    ValueError: if there is no such run, it has another backbone, or it saw
      pixels of another scale.
  """
  try:
    step = config.network.init_step
    donor = trained_model.load(workdir, "best" if step is None else step)
  except ValueError as error:
    raise ValueError(
      f"the run to begin with, {workdir}, cannot be used: {error} "
      "(`fcn-jax convert import` makes one of published weights.)"
    ) from error
  if isinstance(donor.model, models.LateFusion):
    raise ValueError(
      f"{workdir} is a run of late fusion, two networks: give one of the runs "
      f"that it began with, such as {donor.config.network.init}."
    )
  for name in ("backbone", "normalization"):
    there = getattr(donor.config.network, name)
    here = getattr(config.network, name)
    # VGGs with and without batch normalization have the same layers.
    if there.startswith("vgg"):
      there, here = there.removesuffix("_bn"), here.removesuffix("_bn")
    if there != here:
      raise ValueError(
        f"{workdir} has the {name} {there}, but this network has {here}: give "
        f"--{name} {there}, or another --init."
      )
  _check_inputs(donor, workdir, config, inputs, modality)
  return donor


def _check_inputs(donor, workdir, config, inputs, modality):
  """Raises a `ValueError` if a run saw other pixels than this network."""
  saw, sees = donor.config.data.modalities, modality or config.data.modalities
  if (saw == "hha" and sees != "hha") or (modality == "hha" and saw != "hha"):
    raise ValueError(
      f"{workdir} was trained on {saw}, but this network is for {sees}: give a "
      "run for that."
    )
  scale = donor.model.inputs.scale
  # This network may have more channels, which get a kernel of their own.
  if scale == inputs.scale[: len(scale)]:
    return
  given = donor.config.network.inputs
  if modality:
    remedy = "late fusion needs runs with the inputs nyud_color and nyud_hha."
  elif given:
    remedy = f"give --inputs {given}, as that run."
  else:
    remedy = "leave --inputs out, as that run did."
  raise ValueError(
    f"{workdir} was trained with pixels scaled by {scale}, but this network "
    f"has {inputs.scale}: {remedy}"
  )

"""Trains a network, and can be left alone.

    python experiments/train.py shapes
    python experiments/train.py folder --data-dir PICTURES
    python experiments/train.py camvid_small --data-dir CAMVID --steps 4000
    python experiments/train.py voc_fcn16s --init runs/voc_fcn32s ...

A preset is a set of options; all of them can be changed. The same command goes
on with a run that has ended early, in whatever way, and gives the same losses
and parameters to the bit as if it had not (on a GPU, where XLA's operations are
made deterministic by XLA_FLAGS=--xla_gpu_deterministic_ops=true). With more
--steps it goes on with a finished run. SIGTERM and Ctrl-C save first.

Writes to the work folder: config.json and starts.jsonl (options, versions,
devices, commit), metrics.jsonl (rows of training and validation), tensorboard/,
checkpoints/ (the two newest and the best by the mean IU of the validation
split), and at the end summary.json, table.md and curves.png. evaluate.py,
predict.py and export.py go on from there.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import command_line
import fcn_jax as fcn
import recipe
import run_folder
import train_loop
import train_presets
import train_report
import trained


def shardings(
  config: train_presets.Train,
) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
  """How batches and the state lie on the devices.

  Returns:
    Of batches: shared out over the devices; and of the state: on each.

  Raises:
    ValueError: if the devices that were asked for are not there, or cannot
      share a batch.
  """
  devices = jax.local_devices()
  count = config.num_devices or max(
    n for n in range(1, len(devices) + 1) if config.batch_size % n == 0
  )
  if count > len(devices):
    raise ValueError(
      f"num_devices is {count}, but there are {len(devices)} devices."
    )
  if config.batch_size % count:
    raise ValueError(
      f"{count} devices cannot share a batch of {config.batch_size} images: "
      "choose a batch_size that they divide."
    )
  mesh = jax.make_mesh(
    (count,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices[:count],
  )
  return (
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")),
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
  )


def initial_state(
  config: train_presets.Train,
  model: fcn.models.Network,
  optimizer: optax.GradientTransformation,
) -> tuple[fcn.train.TrainState, str]:
  """The state before the first step, and what to say of it.

  Raises:
    ValueError: if the run to start from is not there, or has another backbone.
  """
  init_key, _ = train_loop.random_keys(config)
  state = fcn.train.create_state(init_key, model, optimizer)
  if config.init is None:
    return state, "initial parameters: drawn at random."
  if isinstance(model, fcn.models.LateFusion):
    paths = {"color": config.init, "hha": config.init_hha}
    donors = {
      name: donor_of(config, paths[name], inputs, modality=name)
      for name, inputs in model.modalities
    }
    # Under the names of the modalities, as the network has them.
    source = {}
    for name, donor in donors.items():
      for collection, layers in donor.variables.items():
        source.setdefault(collection, {})[name] = layers
  else:
    paths = {"": config.init}
    donors = {"": donor_of(config, config.init, model.inputs)}
    source = donors[""].variables
  variables, report = fcn.pretrained.transplant(
    source, fcn.train.variables(state)
  )
  # An average of the parameters begins with these.
  state = fcn.train.state_from(variables, optimizer)
  origins = "; ".join(
    f"{paths[name]}, step {donor.step}" for name, donor in donors.items()
  )
  return state, f"initial parameters: {origins}\n{report}"


def donor_of(
  config: train_presets.Train,
  workdir: pathlib.Path,
  inputs: fcn.models.input_normalization.InputNormalization,
  *,
  modality: str | None = None,
) -> trained.Trained:
  """The network of a run that another one begins with.

  Args:
    config: of the other one.
    workdir: of the run.
    inputs: what the other one does to the pixels. Means may differ, as in the
      papers, where nets for other data begin with VGG16.
    modality: of late fusion, for which the run was trained.

  Raises:
    ValueError: if there is no such run, or it has another backbone, or saw
      pixels of another scale.
  """
  try:
    donor = trained.load(workdir, "best")
  except ValueError as error:
    raise ValueError(
      f"the run to start from, {workdir}, cannot be used: {error} "
      "(convert_weights.py makes one of published weights.)"
    ) from error
  if isinstance(donor.model, fcn.models.LateFusion):
    raise ValueError(
      f"{workdir} is a run of late fusion, two networks: give one of the runs "
      f"that it began with, such as {donor.config.init}."
    )
  for name in ("backbone", "normalization"):
    there, here = getattr(donor.config, name), getattr(config, name)
    # VGGs with and without batch normalisation have the same layers.
    if there.startswith("vgg"):
      there, here = there.removesuffix("_bn"), here.removesuffix("_bn")
    if there != here:
      raise ValueError(
        f"{workdir} has the {name} {there}, and this network {here}: give "
        f"--{name} {there}, or another --init."
      )
  saw, sees = donor.config.modalities, modality or config.modalities
  if (saw == "hha" and sees != "hha") or (modality == "hha" and saw != "hha"):
    raise ValueError(
      f"{workdir} was trained on {saw}, and this network is for {sees}: give a "
      "run for that."
    )
  scale = donor.model.inputs.scale
  # There may be channels more here, which get a kernel of their own.
  if scale != inputs.scale[: len(scale)]:
    raise ValueError(
      f"{workdir} was trained with pixels scaled by {scale}, and this network "
      f"has {inputs.scale}: "
      + (
        "late fusion is of runs with the inputs nyud_color and nyud_hha."
        if modality
        else f"give --inputs {donor.config.inputs}, as that run."
        if donor.config.inputs
        else "leave --inputs out, as that run did."
      )
    )
  return donor


def restored_state(
  config: train_presets.Train,
  template: dict[str, Any],
  checkpoints: fcn.runs.checkpoints.Checkpoints,
  metadata: dict[str, Any],
) -> fcn.runs.checkpoints.Restored | None:
  """The newest checkpoint of the run; None if it has none yet.

  Raises:
    ValueError: if the data are not those of the checkpoint.
  """
  restored = checkpoints.restore_latest(template)
  if restored is None:
    return None
  for name in ("classes", "data"):
    if restored.metadata.get(name) != metadata[name]:
      raise ValueError(
        f"the {name} are not those that the run in {config.workdir} was "
        f"trained on: {metadata[name]} now, {restored.metadata.get(name)} "
        "there. Bring the data back as they were, or give another --workdir."
      )
  return restored


def check_disk(config: train_presets.Train, state: dict[str, Any]) -> None:
  """Raises a `ValueError` if the checkpoints will not fit on the disk."""
  # The two newest, the best, and the one that is being written.
  needed = 4 * fcn.runs.checkpoints.num_bytes(state)
  free = command_line.free_bytes(config.workdir)
  if free < needed:
    raise ValueError(
      f"{config.workdir} has room for {free / 1e9:.2f} GB, but four "
      f"checkpoints are {needed / 1e9:.2f} GB: make room, or give another "
      "--workdir."
    )


def run(config: train_presets.Train) -> None:
  """Trains to the end, and writes the report."""
  with command_line.explained_errors():
    recipe.check_options(config)
    goes_on = run_folder.check(config)
    batch_sharding, state_sharding = shardings(config)
    validation = recipe.load_split(config, config.validation_split)
    dataset = recipe.load_training_split(config)
    batches = recipe.make_batches(config, dataset)
    model = recipe.make_model(config, dataset.num_classes)
    optimizer = recipe.make_optimizer(config)
    sampler = recipe.make_sampler(config, dataset)
    template = trained.state_template(model, optimizer)
    metadata = {
      "classes": recipe.class_table(dataset),
      "options": run_folder.as_json(config),
      "random_key": np.asarray(
        jax.random.key_data(train_loop.random_keys(config)[1])
      ).tolist(),
      "data": {
        "batches": batches.fingerprint,
        "train": dataset.fingerprint,
        "validation": validation.fingerprint,
      },
    }
    # The pipeline checks its options when it is made.
    batches.starting_at(0).close()
    folder = config.workdir / run_folder.CHECKPOINTS
    restored, state, origin = None, None, ""
    if goes_on or folder.exists():
      # Refuses if another program is training in this folder.
      with fcn.runs.checkpoints.Checkpoints(folder) as checkpoints:
        if goes_on:
          restored = restored_state(config, template, checkpoints, metadata)
    if restored is None:
      check_disk(config, template)
      state, origin = initial_state(config, model, optimizer)
    run_folder.claim(config)
  mean_iu, progress = None, train_loop.Progress()
  if restored is not None:
    state = fcn.train.TrainState(**restored.state)
    mean_iu = restored.mean_iu
    progress = train_loop.Progress.from_json(restored.metadata["progress"])
    origin = f"goes on from step {restored.step}."
  print(f"{config.workdir}: {origin}", file=sys.stderr)
  from_step = int(state.step)
  # Copied: arrays of the host may be shared with the device on a CPU.
  state = jax.device_put(jax.tree.map(jnp.array, state), state_sharding)
  number = run_folder.num_starts(config.workdir)
  warning = ""
  if config.overwrite:
    warning = " Leave --overwrite out then: it would delete the run."
  parts = train_loop.Parts(
    model=model,
    step=recipe.make_train_step(config, model, optimizer, sampler),
    schedule=recipe.learning_rate(config),
    batches=batches,
    validation=validation,
    metadata=metadata,
    batch_sharding=batch_sharding,
  )
  try:
    with (
      fcn.runs.checkpoints.Checkpoints(folder) as checkpoints,
      fcn.runs.records.TensorBoard(
        config.workdir / run_folder.TENSORBOARD,
        resumed_step=from_step if goes_on else None,
      ) as board,
      train_loop.StopSignals() as signals,
    ):
      run_folder.append_start(config, number=number, from_step=from_step)
      board.text(
        from_step,
        "options",
        fcn.runs.records.markdown_table(run_folder.as_json(config)),
      )
      train_loop.Run(
        config,
        parts,
        start=number,
        checkpoints=checkpoints,
        board=board,
        signals=signals,
        progress=progress,
      ).train(state, mean_iu=mean_iu)
      print(train_report.write(config, checkpoints.best(), validation))
  except train_loop.Interrupted as reason:
    print(f"{config.workdir}: {reason}{warning}", file=sys.stderr)
    # As shells report it.
    sys.exit(128 + reason.signal_number)
  except train_loop.NonFiniteError as error:
    sys.exit(f"error: {config.workdir}: {error}")
  except OSError as error:
    sys.exit(
      f"error: {config.workdir}: {error} Once that is mended, the same "
      f"command goes on from the newest checkpoint.{warning}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options and trains.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    train_presets.PRESETS, description=__doc__, args=arguments
  )
  run(config)


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    # Before the first step, or at the second Ctrl-C.
    sys.exit("interrupted; the same command goes on from what is saved.")

"""A run from its options to its report.

It checks everything that can be wrong before it writes anything.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fcn_jax import data
from fcn_jax import reprs
from fcn_jax import sharding
from fcn_jax import train as train_lib
from fcn_jax.runs import batches as batches_lib
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints as checkpoints_lib
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment
from fcn_jax.runs import folder
from fcn_jax.runs import initial_state
from fcn_jax.runs import loop
from fcn_jax.runs import placement
from fcn_jax.runs import processes
from fcn_jax.runs import records
from fcn_jax.runs import report
from fcn_jax.runs import signals as signals_lib
from fcn_jax.runs import trained_model

# Options that may differ from host to host.
_OF_A_HOST = (
  *processes.NAMES,
  "data_dir",
  "prepared_dir",
  "num_threads",
  "num_workers",
)


class Prepared(NamedTuple):
  """A run that is checked, has claimed its folder, and can begin.

  Attributes:
    config: the options.
    parts: what the run is made of.
    state: where training stands, on the devices.
    mean_iu: of this state, if it was validated.
    progress: counts up to here.
    goes_on: whether the folder held the run before.
    resources: the hold on the folder, which ends with the run.
  """

  config: config_lib.Train
  parts: loop.Parts
  state: train_lib.TrainState
  mean_iu: float | None
  progress: loop.Progress
  goes_on: bool
  resources: contextlib.ExitStack


def train(config: config_lib.Train) -> str:
  """Trains to the end.

  The same call resumes a run that ended early for any reason, and gives the
  same losses and parameters to the bit.

  Args:
    config: the options.

  Returns:
    Tables of the scores, in Markdown; nothing in other processes than the
    first.

  Raises:
    ValueError: if an option, the work folder or the data are wrong. Nothing
      was written then.
    signals.Interrupted: if SIGTERM or Ctrl-C came; the state is saved.
    loop.NonFiniteError: if a loss or gradient is not finite.
    OSError: if something could not be read or written.
  """
  return run(prepare(config))


def prepare(
  config: config_lib.Train,
  *,
  at_steps: Mapping[int, Callable[[train_lib.TrainState], None]] | None = None,
) -> Prepared:
  """Checks and makes all that a run needs, and claims its work folder.

  Args:
    config: the options.
    at_steps: see `loop.Parts`.

  Raises:
    ValueError: if an option, the work folder or the data are wrong. Nothing
      was written then.
    OSError: if a file cannot be read.
  """
  config.check()
  _check_same_options(config)
  config = batches_lib.with_steps(config)
  config.check()
  with contextlib.ExitStack() as resources:
    # Of two programs that start at one moment, the other one ends here.
    resources.enter_context(folder.held(config.run.workdir))
    goes_on = folder.check(config)
    _check_same_run(config, goes_on)
    run_id = folder.read_id(config.run.workdir) if goes_on else None
    run_id = run_id or folder.new_id()
    parts, optimizer, state_sharding = make_parts(config, at_steps=at_steps)
    template = trained_model.state_template(parts.model, optimizer)
    restored = _restored(config, template, parts.metadata, goes_on=goes_on)
    mean_iu, progress = None, loop.Progress()
    if restored is None:
      _check_disk(config, template)
      state, origin = initial_state.make(config, parts.model, optimizer)
    else:
      state = train_lib.TrainState(**restored.state)
      mean_iu = restored.mean_iu
      progress = _progress(config, restored)
      origin = f"continues from step {restored.step}."
    folder.claim(config, run_id=run_id)
    parts.metadata["run"] = run_id
    if processes.is_first():
      for line in (*parts.validation.remarks, origin):
        workdir = reprs.path(config.run.workdir)
        print(f"{workdir}: {reprs.printable(line)}", file=sys.stderr)
    state = _placed(state, state_sharding)
    return Prepared(
      config, parts, state, mean_iu, progress, goes_on, resources.pop_all()
    )


def _progress(
  config: config_lib.Train, restored: checkpoints_lib.Restored
) -> loop.Progress:
  """The counts of a checkpoint."""
  try:
    return loop.Progress.from_json(restored.metadata["progress"])
  except (KeyError, TypeError) as error:
    raise ValueError(
      f"step {restored.step} in {config.run.workdir / folder.CHECKPOINTS} does "
      f"not say how far training was ({error}): use the version that saved it."
    ) from error


def run(prepared: Prepared) -> str:
  """Trains to the end, and writes the report; see `train`."""
  with prepared.resources:
    return _run(prepared)


def _run(prepared: Prepared) -> str:
  config, parts, state = prepared.config, prepared.parts, prepared.state
  workdir, from_step = config.run.workdir, int(state.step)
  devices = processes.describe(parts.batch_sharding)
  number = folder.num_starts(workdir)
  with (
    _matmul_precision(config.network.matmul_precision),
    checkpoints_lib.Checkpoints(workdir / folder.CHECKPOINTS) as checkpoints,
    _board(
      workdir, resumed_step=from_step if prepared.goes_on else None
    ) as board,
    signals_lib.StopSignals() as signals,
  ):
    if board is not None:
      folder.append_start(
        config, number=number, from_step=from_step, devices=devices
      )
      options = records.markdown_table(folder.as_json(config))
      board.text(from_step, "options", options)
    training_loop = loop.Loop(
      config,
      parts,
      start=number,
      checkpoints=checkpoints,
      board=board,
      signals=signals,
      progress=prepared.progress,
    )
    state = training_loop.train(state, mean_iu=prepared.mean_iu)
    best = checkpoints.best()
  table = ""
  if processes.is_first():
    table = report.write(
      config,
      best,
      parts.validation,
      steps=int(state.step),
      ended_early=training_loop.ended_early,
    )
    # Where training has its state, prediction is compiled already; another
    # process does not take part here.
    alone = processes.count() == 1
    report.write_predictions(
      config, parts.validation, state.step.sharding if alone else None
    )
  if signals.poll() is not None:
    # It came after the last step. A study must not begin its next run.
    raise signals_lib.Interrupted(signals.received, config.optimizer.steps)
  return table


def _board(workdir: pathlib.Path, *, resumed_step: int | None) -> Any:
  """The TensorBoard files, in a context; None except in the first process."""
  if not processes.is_first():
    return contextlib.nullcontext()
  return records.TensorBoard(
    workdir / folder.TENSORBOARD, resumed_step=resumed_step
  )


def _placed(
  state: train_lib.TrainState, shardings: train_lib.TrainState
) -> train_lib.TrainState:
  """Puts the state, which each process has, on the devices of all."""
  # Copied: arrays of the host may be shared with the device on a CPU.
  state = jax.tree.map(jnp.array, state)
  if processes.count() == 1:
    return jax.device_put(state, shardings)
  # device_put would compare each array of all processes.
  return jax.tree.map(
    lambda array, own: jax.make_array_from_callback(
      array.shape, own, lambda part: array[part]
    ),
    jax.device_get(state),
    shardings,
  )


def _check_same_options(config: config_lib.Train) -> None:
  """Raises a `ValueError` if another process would train otherwise."""
  options = config_lib.flat(config)
  for name in _OF_A_HOST:
    del options[name]
  processes.check_same("options", {n: str(x) for n, x in options.items()})


def _check_same_run(config: config_lib.Train, goes_on: bool) -> None:
  """Raises a `ValueError` if not all processes see the run that is there."""
  found = processes.gather(goes_on)
  if len({*found}) > 1:
    raise ValueError(
      f"process {found.index(True)} sees a run in {config.run.workdir}, and "
      f"process {found.index(False)} does not: give a folder that is shared by "
      "the hosts of all processes."
    )


def _matmul_precision(name):
  """Within this, products have a precision; "default" leaves what is set."""
  if name == "default":
    return contextlib.nullcontext()
  return jax.default_matmul_precision(name)


def make_parts(
  config: config_lib.Train,
  *,
  at_steps: Mapping[int, Callable[[train_lib.TrainState], None]] | None = None,
) -> tuple[loop.Parts, optax.GradientTransformation, train_lib.TrainState]:
  """The parts of a run, its optimizer, and how its state is placed.

  Reads data and writes nothing; see `prepare`.
  """
  mesh = placement.make_mesh(config)
  batch_sharding = sharding.of_images(mesh)
  if processes.count() > 1:
    processes.devices_for(
      config.run.validation_batch,
      row_shards=config.run.row_shards,
      option="validation_batch",
    )
  validation = batches_lib.load_split(config.data, config.data.validation_split)
  dataset = batches_lib.load_split(
    config.data, "train", with_second_labels=True
  )
  batches = batches_lib.training_batches(
    config, dataset, sharding=batch_sharding
  )
  model = build.model(config, dataset.num_classes)
  optimizer = build.optimizer(config.optimizer)
  template = trained_model.state_template(model, optimizer)
  state_sharding = placement.of_state(
    config, mesh, train_lib.TrainState(**template)
  )
  step = train_lib.make_train_step(
    model,
    optimizer,
    build.loss(config, dataset),
    skip_nonfinite=config.max_skipped > 0,
    state_sharding=state_sharding,
  )
  parts = loop.Parts(
    model=model,
    step=processes.compiling_together(step),
    schedule=build.schedule(config.optimizer),
    batches=batches,
    validation=validation,
    metadata=_metadata(config, dataset, validation, batches.fingerprint),
    batch_sharding=batch_sharding,
    at_steps=at_steps or {},
  )
  return parts, optimizer, state_sharding


def _metadata(
  config: config_lib.Train,
  dataset: data.Dataset,
  validation: data.Dataset,
  batches_fingerprint: str,
) -> dict[str, Any]:
  """What every checkpoint holds beside the arrays."""
  key = build.random_keys(config.run.seed)[1]
  return {
    "classes": batches_lib.class_table(dataset),
    "options": folder.as_json(config),
    "random_key": np.asarray(jax.random.key_data(key)).tolist(),
    "data": {
      "batches": batches_fingerprint,
      "train": dataset.fingerprint,
      "validation": validation.fingerprint,
    },
  }


def _restored(
  config: config_lib.Train,
  template: dict[str, Any],
  metadata: dict[str, Any],
  *,
  goes_on: bool,
) -> checkpoints_lib.Restored | None:
  """The newest checkpoint of the run; None if it has none yet.

  Raises:
    ValueError: if another program is training in the folder, or the data are
      not those of the checkpoint.
  """
  workdir = config.run.workdir
  steps = workdir / folder.CHECKPOINTS
  if not goes_on and not steps.exists():
    return None
  # Refuses if another program is training in this folder.
  with checkpoints_lib.Checkpoints(steps) as checkpoints:
    restored = checkpoints.restore_latest(template) if goes_on else None
  if restored:
    folder.check_checkpoint(workdir, restored.step, restored.metadata, config)
    _check_same_classes(workdir, metadata["classes"], restored.metadata)
    there = restored.metadata.get("data")
    if there != metadata["data"]:
      raise ValueError(
        f"the data are not those that the run in {workdir} was trained on: "
        f"{metadata['data']} now, {there} there. Files, their split into "
        "training and validation, or how they are read have changed. Restore "
        "them, or give another --workdir. Versions before 3.2.0 of the data "
        "set folder drew another fifth for validation: to keep it, put those "
        "pictures into a folder validation/."
      )
  return restored


def _check_same_classes(
  workdir: pathlib.Path, now: dict[str, Any], metadata: dict[str, Any]
) -> None:
  """Raises a `ValueError` if a run was trained on other classes.

  Colours may change: they are for people only.
  """
  # Runs of earlier versions do not say what the values of masks mean.
  there = {"masks": now["masks"], **(metadata.get("classes") or {})}
  changed = [
    f"{what} ({there.get(name)} there, {now[name]} now)"
    for name, what in (
      ("names", "the names of the classes"),
      ("masks", "what the values of masks mean"),
    )
    if there.get(name) != now[name]
  ]
  if changed:
    raise ValueError(
      f"the classes are not those that the run in {workdir} was trained on: "
      f"{'; '.join(changed[:1])}. Restore the files as they were. If they are "
      "the same, this version reads masks in another way: list the classes of "
      "the run in classes.json, or give another --workdir."
    )


def _check_disk(config: config_lib.Train, state: dict[str, Any]) -> None:
  """Raises a `ValueError` if the checkpoints will not fit on the disk."""
  workdir = config.run.workdir
  # The two newest, the best, and the one that is being written.
  needed = 4 * checkpoints_lib.num_bytes(state)
  free = environment.free_bytes(workdir)
  if free < needed:
    raise ValueError(
      f"{workdir} has room for {free / 1e9:.2f} GB, but four checkpoints are "
      f"{needed / 1e9:.2f} GB: make room, or give another --workdir."
    )

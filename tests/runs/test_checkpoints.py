import hashlib
import json
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from fcn_jax.runs import checkpoints
from fcn_jax.runs import step_folders
from tests.helpers import manifests


def example_state(seed=0):
  """What a run may have: odd names and types, and nested optimizers."""
  rng = np.random.default_rng(seed)
  params = {
    "conv1": {
      "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32),
      "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
    },
    # Names that look like paths, and like the names of other arrays.
    "a/b": {"c.d": jnp.ones((2, 1)), "ü'][\"%20": jnp.zeros((0, 3))},
  }
  decayed = jax.tree.map(lambda p: p.ndim > 1, params)
  optimizer = optax.MultiSteps(
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.masked(optax.adamw(1e-2), decayed),
    ),
    every_k_schedule=2,
  )
  opt_state = optimizer.init(params)
  # MultiSteps and masked AdamW together are not written for strict types.
  with jax.numpy_dtype_promotion("standard"):
    for _ in range(3):
      gradients = jax.tree.map(lambda p: p + 1, params)
      updates, opt_state = optimizer.update(gradients, opt_state, params)
      params = optax.apply_updates(params, updates)
  return {
    "step": jnp.asarray(3, jnp.int32),
    "params": params,
    "model_state": {
      "batch_stats": {"mean": jnp.arange(4.0)},
      "ema": {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.bfloat16)},
    },
    "opt_state": opt_state,
  }


def small_state(value):
  """Distinct at each step, and quick to save."""
  return {
    "params": {"w": jnp.full((4, 3), float(value))},
    "model_state": {},
    "opt_state": {"count": jnp.asarray(value, jnp.int32)},
  }


SMALL = jax.eval_shape(lambda: small_state(0))


def save_small(folder, mean_ius, **options):
  """Saves the steps 1, 2, ... with these scores; gives those that are left."""
  with checkpoints.Checkpoints(folder, **options) as saved:
    for step, mean_iu in enumerate(mean_ius, start=1):
      saved.save(step, small_state(step), metadata={})
      if mean_iu is not None:
        saved.score(step, mean_iu)
    saved.wait()
    return saved.steps(), saved.best()


@pytest.fixture
def two_steps(tmp_path):
  """A folder with the steps 1 and 2."""
  save_small(tmp_path / "run", [0.25, 0.5])
  return tmp_path / "run"


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=1):
    b = np.asarray(b)
    assert isinstance(a, np.ndarray)
    assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def listing(folder):
  """All that an observer sees of a folder, without its times of access."""
  return {
    path.relative_to(folder): (
      path.stat().st_ino,
      path.stat().st_mtime_ns,
      path.read_bytes() if path.is_file() else None,
    )
    for path in [folder, *folder.rglob("*")]
  }


# Restoring what was saved.


def test_all_arrays_come_back_to_the_bit_in_their_structure(tmp_path):
  state = example_state()
  metadata = {"classes": ["Straße", "sky"], "position": {"batch": 7}}
  # Folders have all kinds of names, too.
  with checkpoints.Checkpoints(tmp_path / "run #1 ä%20?") as saved:
    saved.save(3, state, metadata=metadata)
    saved.score(3, np.float32(0.5))
    restored = saved.restore_latest(jax.eval_shape(lambda: state))
  assert_same_bits(restored.state, state)
  assert restored[0::2] == (3, metadata)
  assert restored.mean_iu == 0.5
  dtypes = {str(x.dtype) for x in jax.tree.leaves(restored.state)}
  assert dtypes == {"float32", "bfloat16", "int32"}


def test_orbax_and_sha256sum_read_what_is_on_the_disk(tmp_path):
  state = example_state()
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(3, state, metadata={})
  step = tmp_path / "00000003"
  with ocp.PyTreeCheckpointer() as checkpointer:
    params = checkpointer.restore(step / "params")
  np.testing.assert_array_equal(
    params["params['conv1']['kernel']"], state["params"]["conv1"]["kernel"]
  )
  command = ["sha256sum", "--check", "--strict", "manifest.sha256"]
  if shutil.which("sha256sum"):
    subprocess.run(command, cwd=step, check=True)


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
  with checkpoints.Checkpoints(tmp_path / "new" / "run") as saved:
    assert saved.restore_latest(SMALL) is None
    assert saved.steps() == ()
    assert saved.best() is None


def test_a_state_goes_from_four_devices_to_one_and_back(tmp_path):
  mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
  four = jax.NamedSharding(mesh, jax.P())
  state = example_state()
  with checkpoints.Checkpoints(tmp_path) as saved:
    for step, placement in enumerate([four, jax.devices()[1], four]):
      state = jax.device_put(state, placement)
      saved.save(step, state, metadata={})
      state = saved.restore_latest(state).state
  assert_same_bits(state, example_state())


def test_names_that_are_not_asked_for_are_not_read(two_steps):
  shutil.rmtree(two_steps / "00000002" / "opt_state")
  template = {"params": SMALL["params"]}
  restored = checkpoints.read(two_steps, "latest", template)
  assert_same_bits(restored.state, {"params": small_state(2)["params"]})
  with pytest.raises(ValueError, match="damaged.*opt_state"):
    checkpoints.read(two_steps, "latest", SMALL)


# Saving in the background.


@pytest.fixture
def gate(monkeypatch):
  """Holds back the writing of a step until it is set."""
  event, write = threading.Event(), step_folders.write

  def write_later(*args):
    event.wait()
    write(*args)

  monkeypatch.setattr(step_folders, "write", write_later)
  return event


def test_a_donated_or_changed_state_is_saved_as_it_was(tmp_path, gate):
  add_one = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
  )
  state = {"params": jnp.arange(1e4), "host": np.arange(3)}
  metadata = {"classes": ["a"]}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, metadata=metadata)
    assert saved.steps() == ()
    state["host"] += 1
    metadata["classes"].append("b")
    params = state["params"]
    for _ in range(3):
      params = add_one(params)
    jax.block_until_ready(params)
    gate.set()
    restored = saved.restore_latest({**state, "params": params})
  assert_same_bits(
    restored.state, {"params": np.arange(1e4, dtype="f"), "host": np.arange(3)}
  )
  assert restored.metadata == {"classes": ["a"]}


def test_leaving_by_an_error_waits_for_the_save(tmp_path, gate):
  timer = threading.Timer(0.3, gate.set)
  with (
    pytest.raises(KeyboardInterrupt),
    checkpoints.Checkpoints(tmp_path) as saved,
  ):
    saved.save(1, small_state(1), metadata={})
    timer.start()
    raise KeyboardInterrupt
  assert saved.steps() == (1,)


def test_only_one_program_at_a_time_writes(tmp_path):
  code = """
    import fcntl, sys
    file = open(sys.argv[1], "w")
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
  """
  with subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(code), tmp_path / ".lock"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as other:
    other.stdout.readline()
    with pytest.raises(ValueError, match="Another program is writing"):
      checkpoints.Checkpoints(tmp_path)
    other.kill()
  assert save_small(tmp_path, [None]) == ((1,), None)


# Which steps are kept.


@pytest.mark.parametrize(
  ("mean_ius", "num_latest", "kept", "best"),
  [
    ([0.1, 0.5, 0.3, 0.2, 0.4], 2, (2, 4, 5), 2),
    ([0.1, 0.2, 0.3], 1, (3,), 3),
    ([0.1, 0.2, 0.2, 0.1], 1, (3, 4), 3),
    ([0.3, np.nan, None, np.inf, np.nan], 2, (1, 4, 5), 1),
    ([None, np.nan, None], 1, (3,), None),
  ],
)
def test_the_latest_and_the_best_are_kept(
  tmp_path, mean_ius, num_latest, kept, best
):
  found = save_small(tmp_path, mean_ius, num_latest=num_latest)
  assert found == (kept, best)
  visible = {path.name for path in tmp_path.iterdir()} - {".lock"}
  assert visible == {f"{step:08d}" for step in kept}


def test_a_step_that_is_not_there_cannot_be_scored(two_steps):
  with checkpoints.Checkpoints(two_steps) as saved:
    # Scoring waits for the save.
    saved.save(3, small_state(3), metadata={})
    saved.score(3, 0.75)
    with pytest.raises(ValueError, match=r"no step 4 to score; .*\(2, 3\)"):
      saved.score(4, 0.9)
  assert saved.best() == 3


def test_a_step_that_is_set_aside_takes_its_score_with_it(tmp_path):
  save_small(tmp_path, [0.1, 0.5])
  flip(0.5)(tmp_path / "00000002" / "manifest.json")
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.warns(UserWarning, match="set aside"):
      assert saved.restore_latest(SMALL).step == 1
    assert saved.best() == 1
    saved.save(2, small_state(2), metadata={})
    saved.wait()
    assert saved.best() == 1


def test_the_best_is_kept_when_the_run_goes_on_later(tmp_path):
  save_small(tmp_path, [0.5, 0.1])
  with checkpoints.Checkpoints(tmp_path, num_latest=1) as saved:
    saved.save(9, small_state(9), metadata={})
    saved.score(9, 0.2)
  assert saved.steps() == (1, 9)


def test_what_a_kill_left_is_removed_and_other_files_are_not(two_steps):
  for name in (".partial-00000003", ".removed-00000001", "damaged-00000001"):
    shutil.copytree(two_steps / "00000002", two_steps / name)
  (two_steps / "notes.txt").write_text("Mine.")
  with checkpoints.Checkpoints(two_steps) as saved:
    assert saved.steps() == (1, 2)
  names = {path.name for path in two_steps.iterdir()} - {".lock"}
  assert names == {"00000001", "00000002", "damaged-00000001", "notes.txt"}


# What is refused.


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_state_that_is_not_finite_replaces_nothing(two_steps, dtype, value):
  bad = {"params": {"w": jnp.asarray([0, value], dtype)}}
  before = listing(two_steps / "00000002")
  with checkpoints.Checkpoints(two_steps, num_latest=1) as saved:
    with pytest.raises(ValueError, match=r"params\['w'\] is not finite at"):
      saved.save(3, bad, metadata={})
    assert saved.steps() == (1, 2)
  assert listing(two_steps / "00000002") == before


@pytest.mark.parametrize(
  ("step", "name", "metadata", "message"),
  [
    (2, "params", {}, "has step 2 already"),
    (1, "params", {}, "step 1 is not after it"),
    (3, "../params", {}, "cannot be a name"),
    (3, "params", {"loss": np.nan}, "not JSON compliant"),
  ],
)
def test_what_cannot_be_saved_is_refused_at_once(
  two_steps, step, name, metadata, message
):
  saved = checkpoints.Checkpoints(two_steps)
  with saved, pytest.raises(ValueError, match=message):
    saved.save(step, {name: jnp.ones(2)}, metadata=metadata)
  assert saved.steps() == (1, 2)


def test_fewer_than_one_latest_step_is_refused(tmp_path):
  with pytest.raises(ValueError, match="at least 1"):
    checkpoints.Checkpoints(tmp_path, num_latest=0)


def with_params(**params):
  return {**SMALL, "params": params}


@pytest.mark.parametrize(
  ("template", "message"),
  [
    (
      with_params(w=jnp.zeros((4, 5))),
      r"params\['w'\] is float32\[4, 3\] there and float32\[4, 5\] here",
    ),
    (with_params(w=jnp.zeros((4, 3), jnp.int32)), r"int32\[4, 3\] here"),
    (with_params(), r"params\['w'\] is float32\[4, 3\] there and missing"),
    (
      with_params(w=SMALL["params"]["w"], b=jnp.zeros(3)),
      r"params\['b'\] is missing there and float32\[3\] here",
    ),
    ({"ema": jnp.zeros(3)}, r"ema is missing there"),
    (with_params(**{str(i): jnp.ones(1) for i in range(9)}), "and 5 more"),
  ],
)
def test_another_network_is_an_error_and_the_step_stays(
  two_steps, template, message
):
  with checkpoints.Checkpoints(two_steps) as saved:
    before = listing(two_steps)
    with pytest.raises(ValueError, match=message):
      saved.restore_latest(template)
    assert listing(two_steps) == before


# Damage.


def flip(position):
  def damage(path):
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1 << 5
    path.write_bytes(content)

  return damage


def truncate(share):
  def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

  return damage


def replace_by_a_folder(path):
  path.unlink()
  path.mkdir()


DAMAGES = {
  "first byte": flip(0.0),
  "byte in the middle": flip(0.5),
  "last byte": flip(1.0),
  "empty": truncate(0.0),
  "half": truncate(0.5),
  "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
  "deleted": pathlib.Path.unlink,
  "a folder": replace_by_a_folder,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_to_any_file_of_the_newest_step_is_found(two_steps, damage):
  newest, aside = two_steps / "00000002", two_steps / "damaged-00000002"
  good = two_steps.parent / "good"
  shutil.copytree(newest, good)
  files = [x.relative_to(good) for x in good.rglob("*") if x.is_file()]
  assert len(files) > 15
  with checkpoints.Checkpoints(two_steps) as saved:
    for file in files:
      if file.name == "score.json" and damage is DAMAGES["deleted"]:
        continue  # Then the step was not scored.
      damage(newest / file)
      message = f"00000002 is damaged: .*{re.escape(file.name)}"
      with pytest.warns(UserWarning, match=message):
        restored = saved.restore_latest(SMALL)
      assert restored.step == 1
      assert_same_bits(restored.state, small_state(1))
      assert saved.steps() == (1,)
      found = aside / file
      assert found.exists() == (damage is not DAMAGES["deleted"])
      shutil.rmtree(aside)
      shutil.copytree(good, newest)
    assert saved.restore_latest(SMALL).step == 2


def test_damage_by_whoever_wrote_is_found_in_the_array(tmp_path, monkeypatch):
  save = ocp.Checkpointer.save

  def save_other(self, path, arrays):
    save(self, path, {key: 2 * array for key, array in arrays.items()})

  save_small(tmp_path, [None])
  with checkpoints.Checkpoints(tmp_path) as saved:
    monkeypatch.setattr(ocp.Checkpointer, "save", save_other)
    saved.save(2, {"params": {"w": np.ones((4, 3), "f")}}, metadata={})
    message = r"params\['w'\] is not the array that was saved"
    with pytest.warns(UserWarning, match=message):
      assert saved.restore_latest({"params": SMALL["params"]}).step == 1


def test_damaged_steps_are_kept_aside_under_names_of_their_own(two_steps):
  for attempt in range(3):
    with checkpoints.Checkpoints(two_steps) as saved:
      (two_steps / "00000002" / "manifest.json").write_text(f"bad {attempt}")
      with pytest.warns(UserWarning, match="is set aside as damaged-00000002"):
        assert saved.restore_latest(SMALL).step == 1
      saved.save(2, small_state(2), metadata={})
  kept = sorted(two_steps.glob("damaged-*/manifest.json"))
  assert [path.parent.name for path in kept] == [
    "damaged-00000002",
    "damaged-00000002-2",
    "damaged-00000002-3",
  ]
  assert [path.read_text() for path in kept] == ["bad 0", "bad 1", "bad 2"]


def test_a_run_whose_steps_are_all_damaged_does_not_start_anew(two_steps):
  for path in two_steps.glob("*/params/_METADATA"):
    path.unlink()
  with (
    checkpoints.Checkpoints(two_steps) as saved,
    pytest.warns(UserWarning, match="00000001 is damaged"),
    pytest.warns(UserWarning, match="00000002 is damaged"),
    pytest.raises(ValueError, match="All steps in .* are damaged"),
  ):
    saved.restore_latest(SMALL)
  # Neither when it is started once more.
  with (
    checkpoints.Checkpoints(two_steps) as saved,
    pytest.raises(ValueError, match="move these away to start anew"),
  ):
    saved.restore_latest(SMALL)


def test_a_step_that_cannot_be_judged_is_not_removed(tmp_path):
  save_small(tmp_path, [0.5, 0.1])
  flip(0.5)(tmp_path / "00000001" / "score.json")
  with checkpoints.Checkpoints(tmp_path, num_latest=1) as saved:
    saved.save(3, small_state(3), metadata={})
    saved.score(3, 0.2)
  assert saved.steps() == (1, 3)


# Folders and scores of other steps.


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
@pytest.mark.parametrize("number", [1, 9])
def test_a_step_under_another_number_is_none(two_steps, move, number):
  other = two_steps / f"{number:08d}"
  shutil.rmtree(other, ignore_errors=True)
  move(two_steps / "00000002", other)
  message = rf"0{number} is damaged: manifest.json is that of step 2.*renamed"
  with pytest.raises(ValueError, match=message):
    checkpoints.read(two_steps, number, SMALL)
  with pytest.raises(ValueError, match=message):
    checkpoints.scores(two_steps)
  with (
    checkpoints.Checkpoints(two_steps) as saved,
    pytest.raises(ValueError, match="renamed or copied"),
  ):
    saved.score(number, 0.9)


def test_a_copy_of_a_step_is_set_aside_and_the_step_restored(two_steps):
  shutil.copytree(two_steps / "00000002", two_steps / "00000009")
  with (
    checkpoints.Checkpoints(two_steps) as saved,
    pytest.warns(UserWarning, match="set aside as damaged-00000009"),
  ):
    assert saved.restore_latest(SMALL).step == 2


def test_the_score_of_another_step_or_run_is_none(two_steps, tmp_path):
  save_small(tmp_path / "other", [0.1, 0.75])
  score = two_steps / "00000002" / "score.json"
  for step in (two_steps / "00000001", tmp_path / "other" / "00000002"):
    shutil.copy(step / "score.json", score)
    if step.parent == two_steps:
      with pytest.raises(ValueError, match="is not as written for this step"):
        checkpoints.read(two_steps, "latest", SMALL)
  with pytest.raises(ValueError, match="not as written"):
    checkpoints.read(two_steps, "best", SMALL)


def test_steps_of_the_version_before_are_read(two_steps):
  step = two_steps / "00000002"
  manifests.rewrite(step, lambda manifest: manifest.pop("format") and None)
  # A score that says its manifest is of a later version than this manifest.
  with pytest.raises(ValueError, match="score.json is not as written"):
    checkpoints.read(two_steps, "latest", SMALL)
  digest = hashlib.sha256(b"0.5").hexdigest()
  old = f'{{"mean_iu": 0.5, "sha256": "{digest}"}}\n'
  (step / "score.json").write_text(old)
  restored = checkpoints.read(two_steps, "best", SMALL)
  assert (restored.step, restored.mean_iu) == (2, 0.5)
  # The old form is none for a new step.
  (two_steps / "00000001" / "score.json").write_text(old)
  with pytest.raises(ValueError, match="00000001 is damaged: score.json"):
    checkpoints.scores(two_steps)


PATH = ("arrays", "params", "params['w']")


def put(value, *path):
  """Replaces what a manifest has at a path."""

  def change(manifest):
    for key in path[:-1]:
      manifest = manifest[key]
    manifest[path[-1]] = value

  return change


def remove(*path):
  def change(manifest):
    for key in path[:-1]:
      manifest = manifest[key]
    del manifest[path[-1]]

  return change


ODD_FORMS = {
  "a list": lambda _: b"[]",
  "null": lambda _: b"null",
  "a number": lambda _: b"3",
  "deep": lambda _: b"[" * 100_000,
  "huge": lambda _: b'{"step": 1' + b"0" * 5000 + b"}",
  "not UTF-8": lambda _: b'{"step": "\xff"}',
  **{f"no {name}": remove(name) for name in ("step", "metadata", "arrays")},
  "no files": remove("files"),
  "step as text": put("2", "step"),
  "step as a fraction": put(2.0, "step"),
  "a huge step": put(10**400, "step"),
  "a true step": put(True, "step"),
  "a list as format": put([2], "format"),
  "a later format": put(3, "format"),
  "a list of metadata": put([], "metadata"),
  "a list of arrays": put([], "arrays"),
  "a list of named arrays": put([], "arrays", "params"),
  "a list as a record": put([], *PATH),
  "no shape": remove(*PATH, "shape"),
  "no checksum": remove(*PATH, "sha256"),
  "a short checksum": put("00", *PATH, "sha256"),
  "a shape as text": put("43", *PATH, "shape"),
  "sides as text": put(["4", "3"], *PATH, "shape"),
  "a negative side": put([4, -3], *PATH, "shape"),
  "many sides": put([1] * 10_000, *PATH, "shape"),
  "a huge side": put([0, 10**30], *PATH, "shape"),
  "objects": put("object", *PATH, "dtype"),
  "no dtype of any kind": put("tensor", *PATH, "dtype"),
  "a list of dtypes": put(["float32"], *PATH, "dtype"),
  "parts as a number": put(3, *PATH, "parts"),
  "a part as a list": put([[]], *PATH, "parts"),
  "a part without axes": put(
    [{"part": [], "sha256": 64 * "0"}], *PATH, "parts"
  ),
  "a list of files": put([], "files"),
  "a file outside": put({"size": 1, "sha256": 64 * "0"}, "files", "../x"),
  "a file as a list": put([], "files", "params/_METADATA"),
  "a size as text": put("12", "files", "params/_METADATA", "size"),
}


@pytest.mark.parametrize("change", ODD_FORMS.values(), ids=ODD_FORMS)
def test_an_odd_form_of_a_manifest_is_damage(two_steps, change):
  manifests.rewrite(two_steps / "00000002", change)
  message = "00000002 is damaged: manifest.json: .{5,300}$"
  with pytest.raises(ValueError, match=message):
    checkpoints.read(two_steps, "latest", SMALL)
  with (
    checkpoints.Checkpoints(two_steps) as saved,
    pytest.warns(UserWarning, match="00000002 is damaged: manifest.json: "),
  ):
    assert saved.restore_latest(SMALL).step == 1


@pytest.mark.parametrize(
  "text",
  [
    "[]",
    '{"mean_iu": 0.5}',
    '{"mean_iu": "0.5", "sha256": ""}',
    '{"mean_iu": 1, "sha256": ""}',
    '{"mean_iu": NaN, "sha256": ""}',
    '{"mean_iu": 1e999, "sha256": ""}',
    '{"mean_iu": true, "sha256": ""}',
    "[" * 4000,
    " " * 10_000,
  ],
)
def test_an_odd_form_of_a_score_is_damage(two_steps, text):
  (two_steps / "00000002" / "score.json").write_text(text)
  with pytest.raises(ValueError, match=r"00000002 is damaged: score.json"):
    checkpoints.read(two_steps, "best", SMALL)


# Disks that are full.


@pytest.fixture
def file_size_limit():
  """Files cannot grow beyond 100 kB: the system says so, nobody pretends."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_clear_error_and_costs_no_step(
  two_steps, file_size_limit, caplog
):
  large = {"params": np.random.default_rng(0).normal(size=100_000)}
  before = listing(two_steps / "00000001"), listing(two_steps / "00000002")
  message = r"Step 3 could not be saved in .*newest good step: 2.*Make room"
  with checkpoints.Checkpoints(two_steps, num_latest=1) as saved:
    saved.save(3, large, metadata={})
    with pytest.raises(OSError, match=message):
      saved.save(4, small_state(4), metadata={})
    assert saved.steps() == (1, 2)
    assert before == tuple(listing(two_steps / f"0000000{x}") for x in (1, 2))
    assert not list(two_steps.glob(".partial-*"))
    # The error is told once; what fits can be saved.
    saved.wait()
    saved.save(5, {"params": large["params"][:99]}, metadata={})
    saved.wait()
    assert saved.steps() == (2, 5)
    saved.save(6, large, metadata={})
    with pytest.raises(OSError, match="newest good step: 5"):
      saved.close()
  assert saved.steps() == (2, 5)
  assert not caplog.records


def test_a_disk_without_room_leaves_the_steps_that_are_there(small_disk, capfd):
  state = {"params": np.ones(400_000, np.float32)}
  with checkpoints.Checkpoints(small_disk) as saved:
    saved.save(1, state, metadata={})
    saved.wait()
    saved.save(2, state, metadata={})
    with pytest.raises(OSError, match=r"newest good step: 1.*No space left"):
      saved.wait()
    assert saved.steps() == (1,)
    assert not list(small_disk.glob(".partial*"))
    assert_same_bits(saved.restore_latest(state).state, state)
  assert capfd.readouterr().err == ""


# Readers.


def test_the_best_the_latest_and_any_other_step_can_be_read(tmp_path):
  save_small(tmp_path, [0.5, 0.1, 0.2])
  for which, step, mean_iu in [
    ("best", 1, 0.5),
    ("latest", 3, 0.2),
    (2, 2, 0.1),
  ]:
    restored = checkpoints.read(tmp_path, which, SMALL)
    assert (restored.step, restored.mean_iu) == (step, mean_iu)
    assert_same_bits(restored.state, small_state(step))
    found = checkpoints.read_metadata(tmp_path, which)
    assert found == (step, {}, mean_iu)


def test_readers_change_nothing(two_steps):
  (two_steps / "00000002" / "params" / "_METADATA").unlink()
  shutil.copytree(two_steps / "00000001", two_steps / ".partial-00000003")
  before = listing(two_steps)
  checkpoints.read(two_steps, 1, SMALL)
  checkpoints.read_metadata(two_steps, "latest")
  with pytest.raises(ValueError, match="00000002 is damaged: .*_METADATA"):
    checkpoints.read(two_steps, "latest", SMALL)
  with pytest.raises(ValueError, match=r"no step 7: .* one of \(1, 2\)"):
    checkpoints.read_metadata(two_steps, 7)
  assert listing(two_steps) == before


def test_a_folder_that_is_no_runs_is_refused_by_readers(tmp_path):
  for folder in (tmp_path, tmp_path / "absent"):
    with pytest.raises(ValueError, match="has no step: give the checkpoints'"):
      checkpoints.read_metadata(folder, "latest")


def test_without_scores_there_is_no_best_step(tmp_path):
  save_small(tmp_path, [None, np.nan])
  with pytest.raises(ValueError, match="No step in .* has a mean IU"):
    checkpoints.read(tmp_path, "best", SMALL)
  assert checkpoints.read(tmp_path, "latest", SMALL).mean_iu is None


def test_the_best_is_not_guessed_when_a_score_is_damaged(tmp_path):
  save_small(tmp_path, [0.5, 0.1])
  flip(0.5)(tmp_path / "00000001" / "score.json")
  with pytest.raises(ValueError, match="00000001 is damaged: score.json"):
    checkpoints.read(tmp_path, "best", SMALL)


@pytest.mark.long
def test_reading_goes_on_while_a_run_saves_and_removes(tmp_path):
  save_small(tmp_path, [0.01])
  done = threading.Event()

  def train():
    with checkpoints.Checkpoints(tmp_path, num_latest=1) as saved:
      for step in range(2, 25):
        saved.save(step, small_state(step), metadata={})
        saved.score(step, step / 100)
    done.set()

  thread = threading.Thread(target=train)
  thread.start()
  steps = {"best": [], "latest": []}
  while not done.is_set():
    for which in ("best", "latest"):
      restored = checkpoints.read(tmp_path, which, SMALL)
      assert_same_bits(restored.state, small_state(restored.step))
      steps[which].append(restored.step)
  thread.join()
  for found in steps.values():
    assert found == sorted(found)
    assert len(set(found)) > 3


def test_bytes_are_known_before_anything_is_saved(tmp_path):
  state = {"params": jnp.zeros((100, 50)), "step": jnp.zeros((), jnp.int32)}
  assert checkpoints.num_bytes(jax.eval_shape(lambda: state)) == 20_004


# Kills.

# Lives of a run, one after the other, each in a process of its own that is
# killed; forked, because importing JAX takes longer than a life.
LIVES = """
import os, pathlib, random, signal, sys, time
import numpy as np
from fcn_jax.runs import checkpoints

def state(step):
  return {"params": {str(i): np.full(60_000, step + i, "f") for i in range(8)}}

def live(folder):
  with checkpoints.Checkpoints(folder) as saved:
    restored = saved.restore_latest(state(0))
    step = restored.step if restored else 0
    for name, array in state(step)["params"].items():
      assert not restored or (restored.state["params"][name] == array).all()
    print("restored", step, flush=True)
    while True:
      step += 1
      saved.save(step, state(step), metadata={"step": step})
      if saved.best() is None:
        saved.score(step, 0.5)
      print("saved", step, flush=True)

folder, random = pathlib.Path(sys.argv[1]), random.Random(0)
for life in range(int(sys.argv[2])):
  child = os.fork()
  if not child:
    live(folder)
  time.sleep(random.uniform(0.4, 1.0))
  os.kill(child, signal.SIGKILL)
  os.waitpid(child, 0)
  print("killed", len(list(folder.glob(".partial-*"))), flush=True)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_from_a_step_it_saved_last(tmp_path):
  num_lives = 8
  result = subprocess.run(
    [sys.executable, "-c", LIVES, tmp_path, str(num_lives)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stderr == ""
  # A save that has returned is on the disk when the next one returns.
  asked, last, num_saved, num_partial = 0, 0, 0, 0
  for line in result.stdout.splitlines():
    word, number = line.split()
    if word == "restored":
      assert last - 1 <= int(number) <= asked
    elif word == "saved":
      last, asked, num_saved = int(number), int(number) + 1, num_saved + 1
    else:
      num_partial += int(number)
  assert num_saved > num_lives
  # Some of the kills were in the middle of a save.
  assert num_partial > 0
  with checkpoints.Checkpoints(tmp_path) as saved:
    # The only one with a score.
    assert saved.best() == min(saved.steps())
    assert last - 1 <= saved.steps()[-1] <= asked
    assert not list(tmp_path.glob(".[pr]*-*"))
    assert not list(tmp_path.glob("damaged-*"))


def test_metadata_is_plain_json_that_anyone_can_read(two_steps):
  manifest = json.loads((two_steps / "00000002/manifest.json").read_text())
  assert manifest["step"] == 2
  assert manifest["metadata"] == {}
  assert manifest["arrays"]["params"]["params['w']"]["shape"] == [4, 3]

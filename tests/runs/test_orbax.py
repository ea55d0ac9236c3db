"""Why runs do not use Orbax's CheckpointManager; see docs/decisions.md.

If a test fails, a later version may replace `checkpoints.Checkpoints`.
"""

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


def test_its_retention_of_the_best_steps_removes_the_newest(tmp_path):
  options = ocp.CheckpointManagerOptions(
    max_to_keep=1,
    best_fn=lambda metrics: metrics["mean_iu"],
    best_mode="max",
    enable_async_checkpointing=False,
  )
  with ocp.CheckpointManager(tmp_path, options=options) as manager:
    for step, mean_iu in ((1, 0.9), (2, 0.5)):
      manager.save(
        step,
        args=ocp.args.StandardSave({"w": jnp.full(3, float(step))}),
        metrics={"mean_iu": mean_iu},
      )
    assert list(manager.all_steps()) == [1]


def test_it_restores_what_is_damaged_without_a_word(tmp_path):
  saved = np.random.default_rng(0).normal(size=10000).astype(np.float32)
  handler = ocp.PyTreeCheckpointHandler(use_compression=False)
  options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)

  def manager():
    return ocp.CheckpointManager(
      tmp_path, item_handlers=handler, options=options
    )

  with manager() as one:
    one.save(1, args=ocp.args.PyTreeSave({"w": jnp.asarray(saved)}))
  files = [path for path in (tmp_path / "1").rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  with manager() as one:
    as_numpy = {"w": ocp.RestoreArgs(restore_type=np.ndarray)}
    restored = one.restore(
      1, args=ocp.args.PyTreeRestore(restore_args=as_numpy)
    )
  assert (np.asarray(restored["w"]) != saved).sum() == 1

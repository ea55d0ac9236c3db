"""Manifests of checkpoints that someone has changed, checksums and all."""

import hashlib
import json
import pathlib
from collections.abc import Callable


def rewrite(step: pathlib.Path, change: Callable[[dict], bytes | None]) -> None:
  """Changes a manifest, and its checksum with it.

  Args:
    step: folder of the step.
    change: changes the manifest, or returns another content of its file.
  """
  file = step / "manifest.json"
  manifest = json.loads(file.read_bytes())
  content = change(manifest)
  if content is None:
    content = json.dumps(manifest).encode()
  file.write_bytes(content)
  digest = hashlib.sha256(content).hexdigest()
  (step / "manifest.sha256").write_text(f"{digest}  manifest.json\n")

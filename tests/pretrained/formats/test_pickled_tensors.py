"""Pickles of strangers: nothing in them is imported, called or run."""

import argparse
import collections
import io
import pathlib
import pickle
import random
import resource
import sys
import time

import numpy as np
import pytest

from fcn_jax.pretrained.formats import pickled_tensors
from tests.helpers import pickle_gadgets
from tests.helpers import torch_files

# Events of Python's audit that reading tensors must not cause.
FORBIDDEN = (
  "import",
  "exec",
  "compile",
  "open",
  "os.",
  "subprocess.",
  "pickle.",
  "socket.",
  "ctypes.",
  "shutil.",
  "marshal.",
  "code.",
  "urllib.",
)
_events = []
_watching = False


def _audit(event, arguments):
  if _watching and event.startswith(FORBIDDEN):
    _events.append((event, arguments))


sys.addaudithook(_audit)


def load(content):
  """What is read, or the error; nothing may be run meanwhile."""
  global _watching
  _events.clear()
  _watching = True
  try:
    return pickled_tensors.load(io.BytesIO(content))
  except ValueError as error:
    return error
  finally:
    _watching = False
    assert not _events, _events


def test_the_audit_sees_what_a_pickle_does():
  global _watching
  _watching = True
  pickle.loads(b"cposix\ngetpid\n)R.")
  _watching = False
  assert any(event == "pickle.find_class" for event, _ in _events)


def checkpoint():
  """What trainers save beside a state dict."""
  arrays = collections.OrderedDict(
    {"conv.weight": np.ones((2, 3), np.float32), "conv.bias": np.arange(2.0)}
  )
  arrays._metadata = collections.OrderedDict({"": {"version": 1}})
  return {
    "model": arrays,
    "args": argparse.Namespace(lr=0.1, classes=["a", "b"]),
    "best_mean_iu": np.float64(0.63),
    "rng": random.Random(0).getstate(),
    "seen": {1, 2},
    "frozen": frozenset("ab"),
    "loss": complex(1, 2),
    "counts": collections.Counter("aab"),
    "by_default": collections.defaultdict(list, {"a": [1]}),
    "path": pathlib.PurePosixPath("a/b"),
    "bytes": b"123",
    "big": 2**3000,
    "optimizer": {
      "state": {0: {"step": 3, "exp_avg": np.ones(3, np.float32)}},
      "param_groups": [{"params": [0, 1], "betas": (0.9, 0.999)}],
    },
    (1, 2): "a key of another type",
  }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_of_other_classes_are_only_names(protocol):
  content, _ = torch_files.pickled(checkpoint(), protocol=protocol)
  found, storages = load(content)
  assert [*found["model"]] == ["conv.weight", "conv.bias"]
  assert found["model"]["conv.weight"].shape == (2, 3)
  assert len(storages) == 3
  assert found["args"] == pickled_tensors.Foreign("argparse.Namespace")
  assert found["best_mean_iu"] is None
  assert found["counts"] == pickled_tensors.Foreign("collections.Counter")
  assert (1, 2) not in found


def text(value):
  return b"X" + len(value).to_bytes(4, "little") + value.encode()


@pytest.mark.parametrize("form", ["global", "stack", "instance", "object"])
def test_gadgets_are_not_called(form):
  """Called with a text, with a tensor, and with a state; also as a key."""
  for module, name in pickle_gadgets.NAMES:
    argument = text("print('ran')")
    named = {
      "global": f"c{module}\n{name}\n".encode(),
      "stack": text(module) + text(name) + b"\x93",
    }.get(form, b"")
    called = {
      "global": named + argument + b"\x85R",
      "stack": named + argument + b"\x85\x81" + b"}b",
      "instance": b"(" + argument + f"i{module}\n{name}\n".encode(),
      "object": b"(" + f"c{module}\n{name}\n".encode() + argument + b"o",
    }[form]
    content = b"\x80\x02}" + text("weight") + called + b"s."
    found, _ = load(content)
    kind = pickled_tensors.Foreign(f"{module}.{name}")
    assert found == {"weight": kind}, (module, name)
    # Chained: the result is called, is a key, or is a storage.
    load(b"\x80\x02}" + text("weight") + called + called + b"\x85Rs.")
    load(b"\x80\x02}" + called + b"K\x01s.")
    load(b"\x80\x02" + called + b"Q.")
    load(b"\x80\x02" + called + b"]K\x01a" + b"b.")


@pytest.mark.long
def test_mutations_are_loaded_or_refused_in_bounded_time_and_memory():
  """20,000 of them, of bytes and of whole instructions."""
  rng = random.Random(0)
  small = {k: v for k, v in checkpoint().items() if k not in ("rng", "big")}
  sources = [
    torch_files.pickled(small, protocol=protocol)[0] for protocol in (2, 4)
  ]
  pieces = [f"c{m}\n{n}\n".encode() for m, n in pickle_gadgets.NAMES]
  pieces += [b"R", b"\x81", b"o", b"b", b"Q", b"(", b"t", b"u", b"e", b"h\x00"]
  pieces += [b"r\xff\xff\xff\x7f", b"\x8a\xff", b"0", b"\x85", b"\x90", b"\x91"]
  outcomes = collections.Counter()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  longest = 0.0
  for _ in range(20_000):
    content = bytearray(rng.choice(sources))
    for _ in range(rng.randint(1, 4)):
      at = rng.randrange(len(content))
      match rng.randrange(4):
        case 0:
          content[at] = rng.randrange(256)
        case 1:
          content[at:at] = rng.choice(pieces)
        case 2:
          del content[at : at + rng.randint(1, 20)]
        case 3:
          other = rng.randrange(len(content))
          content[at:at] = content[other : other + rng.randint(1, 40)]
    start = time.process_time()
    found = load(bytes(content))
    longest = max(longest, time.process_time() - start)
    outcomes[type(found).__name__] += 1
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert outcomes.keys() <= {"tuple", "ValueError", "Refused"}, outcomes
  assert min(outcomes["tuple"], outcomes["ValueError"]) > 1000, outcomes
  # In KiB on Linux.
  assert grown < 200_000 and longest < 5

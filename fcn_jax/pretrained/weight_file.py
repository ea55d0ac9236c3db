"""A file of weights: which of its arrays are a network's, under which names.

People save the same network in many ways: a state dict inside a checkpoint, a
prefix before each name ("module.", "model."), an average beside the weights.
What is told apart here is the backbone: the state dict and the prefix are those
with which all of its names are there.
"""

import collections
import functools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fcn_jax import models
from fcn_jax import strict_json
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import keras_names
from fcn_jax.pretrained import papers_names
from fcn_jax.pretrained import torchvision_layers
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained.formats import caffemodel
from fcn_jax.pretrained.formats import state_dicts

# Where a name comes from: layers of Caffe, torchvision's modules, or the
# papers' layers (and this package's) in PyTorch's manner, `conv1_1.weight`.
Naming = Literal["caffe", "torchvision", "papers"]

# The key in the header of our own exports.
EXPORTED = "fcn_jax"
# Least part of a backbone's names for which a prefix is removed.
_LEAST_SHARE = 0.5
# Where torchvision's FCNs have the backbone.
_BACKBONE = "backbone."
_NUM_SHOWN = 3


class Table(NamedTuple):
  """The names that the arrays of a backbone have in files.

  Attributes:
    backbone: its name here.
    naming: whose names they are.
    names: all of them.
  """

  backbone: str
  naming: Naming
  names: frozenset[str]


class WeightFile(NamedTuple):
  """The arrays of a file.

  Attributes:
    path: of the file.
    naming: of the arrays; None if no backbone is in the file.
    arrays: by name, without the prefix that all arrays of the network have.
    outside: names of arrays and numbers beside the network's.
    said: what was chosen, and which prefix was removed; sentences.
    exported: what `fcn-jax convert export` wrote beside the arrays; None for
      other files.
    is_keras: whether the file is Keras's.
  """

  path: pathlib.Path
  naming: Naming | None
  arrays: dict[str, np.ndarray]
  outside: tuple[str, ...] = ()
  said: tuple[str, ...] = ()
  exported: Mapping[str, Any] | None = None
  is_keras: bool = False


def read(
  path: pathlib.Path, tables: Sequence[Table], *, key: str | None = None
) -> WeightFile:
  """Reads the arrays of one network.

  Args:
    path: the file, of any kind.
    tables: names of the backbones that it may have.
    key: of the state dict; None if only one of them has a backbone.

  Raises:
    ValueError: if the file is damaged or of no known kind; or has several
      networks and no key says which.
  """
  if caffemodel.is_caffe(path):
    if key is not None:
      raise ValueError(f"{path} is a .caffemodel, with one network: no --key.")
    return WeightFile(path, "caffe", caffe_names.read(path))
  content = state_dicts.content(path)
  exported = _exported(path, content.metadata)
  if exported is not None:
    arrays = content.state_dicts[""].read()
    naming = exported.get("naming")
    return WeightFile(path, naming, arrays, exported=exported)
  if content.is_keras:
    arrays = keras_names.to_papers(content.state_dicts[""].read())
    return WeightFile(path, "papers", arrays, is_keras=True)
  choices = _choices(content.state_dicts, tables)
  chosen = _chosen(path, choices, key)
  one = content.state_dicts[chosen.key]
  try:
    arrays = one.read()
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  said = []
  if chosen.key:
    said.append(f"state dict: {chosen.key}")
  prefix = chosen.prefix
  inside = {
    name.removeprefix(prefix): array
    for name, array in arrays.items()
    if name.startswith(prefix)
  }
  outside = tuple(name for name in arrays if not name.startswith(prefix))
  if prefix:
    said.append(f"prefix removed from {len(inside)} names: {prefix}")
  others = (*outside, *one.others)
  if others:
    said.append(f"beside the network: {some(others)}")
  naming = chosen.table.naming if chosen.table else None
  return WeightFile(path, naming, inside, others, tuple(said))


@functools.cache
def published_tables() -> tuple[Table, ...]:
  """The names of all backbones whose weights are published."""
  tables = []
  for name, file in models.fcn.backbones().items():
    if name in torchvision_names.CLASSIFIERS.values():
      tables.append(torchvision_table(name))
    if name in caffe_names.BACKBONES and file is not models.backbones.googlenet:
      layers = file.layer_list(torchvision_layers.architecture(name), "caffe")
      convolutions = [x.name for x in layers if x.name.startswith("conv")]
      tables.append(
        Table(
          name,
          "papers",
          frozenset(
            f"{layer}.{kind}"
            for layer in convolutions
            for kind in ("weight", "bias")
          ),
        )
      )
  return tuple(tables)


def tables_of(model: models.Network) -> tuple[Table, ...]:
  """The names of a network without its score layers."""
  names = (entry.theirs for entry in papers_names.entries(model))
  tables = [
    Table(
      model.backbone,
      "papers",
      frozenset(name for name in names if "score_" not in name),
    )
  ]
  if model.backbone in torchvision_names.CLASSIFIERS.values():
    tables.append(torchvision_table(model.backbone))
  return tuple(tables)


def torchvision_table(backbone: str) -> Table:
  """The names of a backbone in torchvision."""
  names = (
    entry.theirs
    for layer in torchvision_layers.backbone(backbone)
    for entry in torchvision_layers.arrays(layer)
  )
  return Table(backbone, "torchvision", frozenset(names))


def closest(
  names: Collection[str], tables: Sequence[Table]
) -> tuple[Table, tuple[str, ...]]:
  """The backbone that has most of some names, and those that are missing.

  These have the prefix of the others.
  """
  share, table, prefix = 0.0, tables[0], ""
  for one in tables:
    for before, part in _prefixes(names, one).items():
      if part > share:
        share, table, prefix = part, one, before
  missing = {prefix + name for name in table.names} - set(names)
  return table, tuple(sorted(missing))


def some(names: Sequence[str]) -> str:
  """The first of some names, and how many more there are."""
  shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:_NUM_SHOWN])
  more = len(names) - _NUM_SHOWN
  return f"{shown} and {more} more" if more > 0 else shown


class _Choice(NamedTuple):
  """A network in a file: a state dict, and the prefix of the names."""

  key: str
  prefix: str
  table: Table | None
  share: float


def _choices(found, tables) -> list[_Choice]:
  """The networks in a file; those of all state dicts if there is none."""
  choices = {}
  for key, one in found.items():
    for table in tables:
      for prefix, share in _prefixes(one.arrays, table).items():
        # The backbone of torchvision's FCN is a part of the network.
        place = (key, prefix.removesuffix(_BACKBONE))
        best = choices.get(place)
        size = share, len(table.names)
        if best is None or size > (best.share, len(best.table.names)):
          choices[place] = _Choice(*place, table, share)
  whole = [choice for choice in choices.values() if choice.share == 1]
  if whole:
    return whole
  parts = [one for one in choices.values() if one.share >= _LEAST_SHARE]
  if parts:
    return [max(parts, key=lambda one: one.share)]
  return [_Choice(key, "", None, 0.0) for key in found]


def _prefixes(names, table):
  """How much of a backbone stands after each prefix, in 0..1."""
  counts = collections.Counter()
  for name in names:
    start = 0
    while True:
      if name[start:] in table.names:
        counts[name[:start]] += 1
      start = name.find(".", start) + 1
      if not start:
        break
  return {prefix: n / len(table.names) for prefix, n in counts.items()}


def _chosen(path, choices, key) -> _Choice:
  """The only choice, or the one of a key."""
  named = {}
  keys = collections.Counter(choice.key for choice in choices)
  for choice in choices:
    name = choice.key
    if keys[choice.key] > 1 and choice.prefix:
      name = ".".join(filter(None, (choice.key, choice.prefix[:-1])))
    named[name] = choice
  if key is None and len(named) == 1:
    (key,) = named
  if key is None and choices[0].table is None:
    raise ValueError(
      f"{path}: it has no network that is known here, but several dicts of "
      f"arrays: {some(sorted(named))}. If one of them is the network, name it "
      "as --key."
    )
  if key not in named:
    raise ValueError(f"{path}: {state_dicts.which(named, key)}.")
  return named[key]


def _exported(path, metadata):
  text = metadata.get(EXPORTED)
  if text is None:
    return None
  try:
    exported = strict_json.loads(text)
    if type(exported) is not dict:
      raise ValueError("not a dict")
  except ValueError as error:
    raise ValueError(
      f"{path}: what fcn-jax convert export wrote into its header is damaged "
      f"({str(error)[:80]}). Export it again."
    ) from error
  return exported

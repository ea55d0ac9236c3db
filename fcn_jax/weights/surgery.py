"""Net surgery: the parameters of one network as the beginning of another.

The papers train in stages (section 4.2 of CVPR 2015): FCN-16s begins with the
parameters of FCN-32s, and FCN-8s with those of FCN-16s; what a net has besides
begins as if it were new. Networks of this package give the same name to the
same layer, so that names tell what belongs together.
"""

from typing import NamedTuple

import chex
import jax


class Report(NamedTuple):
  """What became of each array; names are paths such as `params/fc6/kernel`.

  Attributes:
    copied: from the source.
    kept: of the target, as the source has none of that name.
    reshaped: of the target, as the source's has another shape (a head for
      other classes).
    unused: of the source only.
  """

  copied: tuple[str, ...]
  kept: tuple[str, ...]
  reshaped: tuple[str, ...]
  unused: tuple[str, ...]

  def __str__(self) -> str:
    """One line for each group that is not empty."""
    lines = (
      ("copied", self.copied),
      ("new, not in the source", self.kept),
      ("new, of another shape in the source", self.reshaped),
      ("left over in the source", self.unused),
    )
    return "\n".join(
      f"{title} ({len(names)}): {', '.join(names)}"
      for title, names in lines
      if names
    )


def transplant(
  source: chex.ArrayTree, target: chex.ArrayTree
) -> tuple[chex.ArrayTree, Report]:
  """Puts the arrays of one network into another where name and shape agree.

  Args:
    source: variables of a trained network, `{"params": ..., ...}`.
    target: variables of the network to train, in its initial state.

  Returns:
    The target's variables, with arrays of the source and the target's dtypes;
    and what became of each.

  Raises:
    ValueError: if nothing could be copied.
  """
  donors = dict(_named(source))
  copied, kept, reshaped, values = [], [], [], []
  for name, array in _named(target):
    donor = donors.pop(name, None)
    if donor is None:
      kept.append(name)
    elif donor.shape != array.shape:
      reshaped.append(name)
    else:
      copied.append(name)
      array = donor.astype(array.dtype)
    values.append(array)
  report = Report(
    tuple(copied), tuple(kept), tuple(reshaped), tuple(sorted(donors))
  )
  if not copied:
    raise ValueError(
      "the two networks have no array of the same name and shape: they have "
      f"different trunks. {report}"
    )
  structure = jax.tree.structure(target)
  return jax.tree.unflatten(structure, values), report


def _named(variables):
  """Pairs of a path, joined by slashes, and the array there."""
  for path, array in jax.tree_util.tree_leaves_with_path(variables):
    yield jax.tree_util.keystr(path, simple=True, separator="/"), array

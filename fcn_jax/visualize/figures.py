"""Figures that are drawn without pyplot."""

import io
import os

import matplotlib.figure

from fcn_jax import writing


class Figure(matplotlib.figure.Figure):
  """A figure that shows itself as the result of a cell of a notebook.

  Notebooks learn from pyplot how to show the figures of Matplotlib. These ones
  bring it along.
  """

  def _repr_png_(self) -> bytes:
    buffer = io.BytesIO()
    self.savefig(buffer, format="png")
    return buffer.getvalue()


def save(
  figure: matplotlib.figure.Figure, path: str | os.PathLike[str] | None
) -> None:
  """Writes a figure with its own resolution, unless the path is None."""
  if path is not None:
    with writing.whole(path, replace=True) as partial:
      figure.savefig(partial, dpi=figure.dpi)

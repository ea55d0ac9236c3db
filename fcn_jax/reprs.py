"""Short descriptions of objects, for a prompt or a notebook."""

import dataclasses
import functools
import html
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Color = tuple[int, int, int]

# Longer values are described by their type.
_MAX_LENGTH = 60
_MAX_ITEMS = 4
# A name that is longer would hide what stands beside it.
_MAX_NAME = 100
_MAX_NAME_IN_FIGURE = 60


def shown(text: Any, *, max_length: int | None = _MAX_NAME) -> str:
  """A name as people see it, on one line, whatever it holds.

  Control characters, which could steer a terminal, lone surrogates, which
  cannot be written, and all else that does not print become escapes. Of a long
  name, the beginning and the end are shown.

  Args:
    text: name of a class, a file or a field; `path` is for whole paths.
    max_length: in characters; None shows all.
  """
  text = str(text)
  if max_length is not None and len(text) > max_length:
    half = max_length // 2
    text = f"{text[:half]}...{text[-half:]}"
  return "".join(
    letter if letter.isprintable() else repr(letter)[1:-1] for letter in text
  )


def printable(text: Any) -> str:
  """A message or a table as people see it: `shown`, but with its lines."""
  lines = str(text).split("\n")
  return "\n".join(shown(line, max_length=None) for line in lines)


def path(path: Any) -> str:
  """A path as people see it: on one line, and all of it."""
  return shown(path, max_length=None)


def names(several: Iterable[Any]) -> str:
  """Names as people see them, in a row."""
  return ", ".join(map(shown, several))


def in_figure(text: Any, *, max_length: int = _MAX_NAME_IN_FIGURE) -> str:
  """A name for Matplotlib, to which dollars begin and end formulas."""
  return shown(text, max_length=max_length).replace("$", r"\$")


def in_table(text: Any) -> str:
  """A name for a cell of a table in Markdown, which a bar would end."""
  return shown(text).replace("|", r"\|")


def value(value: Any) -> str:
  """An array by its shape and dtype, all else in short.

  Nothing is read from a device, but scalars.
  """
  if isinstance(value, Mapping):
    items = (f"{name!r}: {_of(one)}" for name, one in value.items())
    return f"{{{', '.join(items)}}}"
  return _of(value)


def _of(value: Any) -> str:
  shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
  if isinstance(shape, tuple) and dtype is not None:
    return f"{list(shape)} {dtype}"
  if isinstance(value, float):
    return f"{value:g}"
  if inspect.isfunction(value) or inspect.isclass(value):
    # "focal" of a function that `focal` returned.
    return value.__qualname__.partition(".<locals>")[0]
  if getattr(value, "description", ""):
    return repr(value)
  if type(value) is tuple and len(value) <= _MAX_ITEMS:
    return f"({', '.join(map(_of, value))})"
  text = repr(value)
  return text if len(text) <= _MAX_LENGTH else f"<{type(value).__name__}>"


def scalar(array: Any) -> str:
  """The number in an array, if it can be read."""
  is_array = isinstance(array, (np.ndarray, np.generic))
  if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
    is_array = not array.is_deleted() and array.is_fully_addressable
  return str(array.item()) if is_array and array.ndim == 0 else value(array)


def tree(arrays: Any) -> str:
  """How many numbers a tree of arrays holds."""
  leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, "size")]
  if not leaves:
    return "none"
  count = sum(leaf.size for leaf in leaves)
  num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  return f"{len(leaves)} arrays, {count:,} numbers, {size(num_bytes)}"


def size(num_bytes: float) -> str:
  """A number of bytes to read, such as "2.5 MB"."""
  units = ["GB", "MB", "KB", "B"]
  while num_bytes >= 1000 and len(units) > 1:
    num_bytes /= 1000
    units.pop()
  return f"{num_bytes:.3g} {units[-1]}"


def call(name: str, arguments: Mapping[str, Any]) -> str:
  """A call of a function, as one would write it."""
  given = ", ".join(f"{key}={value(one)}" for key, one in arguments.items())
  return f"{name}({given})"


def described(make: Callable[..., Any]) -> Callable[..., Any]:
  """Lets what a function makes say by which call it was made.

  Args:
    make: returns a named tuple or dataclass with a `description`.
  """
  names = [
    name
    for name, parameter in inspect.signature(make).parameters.items()
    if parameter.kind is not parameter.VAR_POSITIONAL
  ]

  # Such as "sampling.places".
  name = f"{make.__module__.split('.')[1]}.{make.__name__}"

  @functools.wraps(make)
  def describe(*arguments: Any, **options: Any) -> Any:
    made = make(*arguments, **options)
    named = names or [f"term_{i}" for i in range(1, len(arguments) + 1)]
    given = dict(zip(named, arguments, strict=False)) | options
    description = call(name, given)
    if dataclasses.is_dataclass(made):
      return dataclasses.replace(made, description=description)
    return made._replace(description=description)

  return describe


def html_table(
  rows: Iterable[Sequence[str | Color]],
  *,
  header: Sequence[str] = (),
  caption: str,
) -> str:
  """A table for notebooks.

  Args:
    rows: of cells: text, or colours.
    header: names of the columns.
    caption: what stands above.
  """

  def line(cells: Sequence[str | Color], tag: str) -> str:
    inner = "".join(
      f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>"
      if isinstance(cell, str)
      else f"<{tag} style='width:2em; background:rgb{cell}'></{tag}>"
      for cell in cells
    )
    return f"<tr>{inner}</tr>"

  head = line(header, "th") if header else ""
  body = "".join(line(row, "td") for row in rows)
  return f"<div>{html.escape(caption)}</div><table>{head}{body}</table>"

"""Tensors from the pickles that torch.save writes, without running them.

A pickle is a program for a small stack machine, and Python's machine calls
whatever the program names. The machine below decodes instructions with
`pickletools`, and imports and calls nothing: a tensor becomes a record of where
its elements are, and any object of another class becomes a `Foreign`, which is
only the name of the class. Its arguments and its state are dropped. So a
checkpoint with the options of a training script can be read, and a hostile one
does nothing. Only strings and integers are kept as keys of dicts, since hashing
nested tuples may take forever.
"""

import pickletools
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

# The types of elements that networks here use; torch has more.
_DTYPES = {
  "torch.DoubleStorage": np.dtype("<f8"),
  "torch.FloatStorage": np.dtype("<f4"),
  "torch.HalfStorage": np.dtype("<f2"),
  "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
  "torch.LongStorage": np.dtype("<i8"),
  "torch.IntStorage": np.dtype("<i4"),
  "torch.ShortStorage": np.dtype("<i2"),
  "torch.CharStorage": np.dtype("i1"),
  "torch.ByteStorage": np.dtype("u1"),
  "torch.BoolStorage": np.dtype("?"),
}
# `_rebuild_tensor` and the class itself are of 2017 and before (VGG16's file).
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = (
  "torch._utils._rebuild_parameter",
  "torch.nn.parameter.Parameter",
)
_DICT = "collections.OrderedDict"
_KNOWN = {_DICT, *_TENSORS, *_PARAMETERS, *_DTYPES}
# NumPy's numbers, such as a best score. They are not needed.
_NUMPY_SCALARS = (
  "numpy.core.multiarray.scalar",
  "numpy._core.multiarray.scalar",
)

# Instructions that push what follows them in the file, or a constant.
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_STRINGS = {
  "BINUNICODE",
  "SHORT_BINUNICODE",
  "BINUNICODE8",
  "SHORT_BINSTRING",
  "BINSTRING",
}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

# Limit of the items of a tuple that is kept. NumPy's arrays have no more axes,
# and handling one huge tuple again and again may take forever.
_MOST_ITEMS = 64
# Limit of integers that are keys: larger ones could be crafted to have equal
# hashes.
_LARGEST_KEY = 2**60


class Refused(ValueError):
  """The file holds, or asks for, what cannot be read as tensors."""


class Storage(NamedTuple):
  """Consecutive elements; tensors are views of them.

  Attributes:
    key: its name in the file.
    dtype: of an element.
    start: index of its first element among those under the key.
    size: number of elements.
  """

  key: str
  dtype: np.dtype
  start: int
  size: int


class Tensor(NamedTuple):
  """Where the elements of a tensor are; the numbers are not checked yet.

  Attributes:
    storage: what it is a view of.
    offset: of its first element in the storage.
    shape: its sizes.
    strides: steps between neighbours along each axis, in elements.
  """

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Parameter:
  """A tensor that old files name first and describe afterwards."""

  def __init__(self, tensor: Any = None):
    self.tensor = tensor


class Foreign(NamedTuple):
  """Stands for an object of another class, which was not made.

  Attributes:
    name: of the class or function that the file names.
  """

  name: str


class _Global(NamedTuple):
  name: str


def load(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
  """Reads one pickle of dicts, lists, tuples, numbers, strings and tensors.

  Args:
    stream: read from its position to the end of the pickle.

  Returns:
    The object, with `Tensor` and `Parameter` in place of tensors, `Foreign` in
    place of objects of other classes, and the storages by key. An OrderedDict
    becomes a dict, without its attributes; NumPy's numbers become None.

  Raises:
    Refused: if it has instructions that torch.save never writes.
    ValueError: if this is not a pickle, or is damaged.
  """
  try:
    return _run(stream)
  except Refused:
    raise
  # Strange escapes in names cause a warning, and warnings may be errors.
  except (ValueError, IndexError, KeyError, TypeError, Warning) as error:
    raise ValueError(
      f"its list of tensors is damaged ({_short(error)}). Download it again"
    ) from error


def _run(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
  stack, outer, memo, storages = [], [], {}, {}
  for opcode, argument, _ in pickletools.genops(stream):
    match opcode.name:
      case "PROTO" | "FRAME":
        pass
      case "STOP":
        return stack.pop(), storages
      case name if name in _NUMBERS or name in _STRINGS:
        stack.append(argument)
      case name if name in _BYTES:
        stack.append(Foreign("builtins.bytes"))
      case name if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      case name if name in _TUPLES:
        start = len(stack) - _TUPLES[name]
        stack[start:] = [tuple(_from(stack, start))]
      case "EMPTY_DICT" | "EMPTY_LIST" as name:
        stack.append({} if name == "EMPTY_DICT" else [])
      case "EMPTY_SET":
        stack.append(Foreign("builtins.set"))
      case "MARK":
        outer.append(stack)
        stack = []
      case "TUPLE" | "APPENDS" | "SETITEMS" | "ADDITEMS" | "FROZENSET" as name:
        items, stack = stack, outer.pop()
        _collect(stack, name, items)
      case "LIST":
        items, stack = stack, outer.pop()
        stack.append(items)
      case "POP":
        stack.pop()
      case "APPEND" | "SETITEM" as name:
        start = -1 if name == "APPEND" else -2
        items = _from(stack, len(stack) + start)
        del stack[start:]
        _collect(stack, name + "S", items)
      case "BINPUT" | "LONG_BINPUT":
        memo[argument] = stack[-1]
      case "MEMOIZE":
        memo[len(memo)] = stack[-1]
      case "BINGET" | "LONG_BINGET":
        stack.append(memo[argument])
      case "GLOBAL":
        stack.append(_global(argument.replace(" ", ".", 1)))
      case "STACK_GLOBAL":
        name, module = stack.pop(), stack.pop()
        stack.append(_global(f"{_short(module)}.{_short(name)}"))
      case "BINPERSID":
        storage = _storage(stack.pop())
        stack.append(storage)
        if type(storage) is Storage:
          storages.setdefault(storage.key, storage)
      case "REDUCE" | "NEWOBJ":
        arguments, called = stack.pop(), stack.pop()
        stack.append(_made(called, arguments))
      case "NEWOBJ_EX":
        # Named arguments and others: nothing of torch's is made this way.
        del stack[-2:]
        stack.append(_foreign(stack.pop()))
      case "OBJ":
        items, stack = stack, outer.pop()
        stack.append(_foreign(items[0]))
      case "INST":
        stack = outer.pop()
        stack.append(Foreign(_short(argument.replace(" ", ".", 1))))
      case "BUILD":
        state = stack.pop()
        _build(stack[-1], state)
      case name:
        raise Refused(more_than_tensors(f"{name} {_short(argument)}"))
  raise AssertionError("genops ends with STOP, or with an error")


def _collect(stack: list[Any], name: str, items: list[Any]) -> None:
  """Puts items into a new tuple, or into the container below them."""
  if name == "TUPLE":
    if len(items) > _MOST_ITEMS:
      # Such as the state of Python's random numbers.
      stack.append(Foreign("builtins.tuple"))
    else:
      stack.append(tuple(items))
  elif name == "FROZENSET":
    stack.append(Foreign("builtins.frozenset"))
  elif type(stack[-1]) is Foreign:
    pass
  elif name == "APPENDS":
    _append(stack[-1], items)
  elif name == "SETITEMS":
    _set(stack[-1], zip(items[::2], items[1::2], strict=True))
  else:
    raise TypeError("items for something that is no set")


def _from(stack: list[Any], start: int) -> list[Any]:
  if start < 0:
    raise IndexError("too few items")
  return stack[start:]


def _append(target: Any, items: list[Any]) -> None:
  if type(target) is not list:
    raise TypeError("items for something that is no list")
  target.extend(items)


def _set(target: Any, pairs: Any) -> None:
  if type(target) is not dict:
    raise TypeError("items for something that is no dict")
  for key, value in pairs:
    # No state dict has other keys.
    if type(key) is str or (type(key) is int and abs(key) <= _LARGEST_KEY):
      target[key] = value


def _global(name: str) -> _Global | Foreign:
  return _Global(name) if name in _KNOWN else Foreign(_short(name))


def _foreign(called: Any) -> Foreign:
  if type(called) not in (_Global, Foreign):
    raise TypeError("an object of something that has no name")
  return Foreign(called.name)


def _storage(identity: Any) -> Storage | Foreign:
  """A storage, from ("storage", type, key, device, size) and maybe a view."""
  match identity:
    case ("storage", _Global(name), str(key), _, int(size), *rest) if (
      name in _DTYPES and size >= 0
    ):
      match rest:
        case [] | [None]:
          return Storage(key, _DTYPES[name], 0, size)
        case [(_, int(start), int(size))] if start >= 0 and size >= 0:
          return Storage(key, _DTYPES[name], start, size)
    # Elements of a type that is not known, or a class with its source.
    case ("storage" | "module", Foreign() as kind, *_):
      return kind
  raise Refused(more_than_tensors("a persistent id that is no storage"))


def _made(
  called: Any, arguments: Any
) -> dict | Tensor | Parameter | Foreign | None:
  """The result of a call, without calling anything."""
  if type(called) is Foreign:
    return None if called.name in _NUMPY_SCALARS else called
  if type(called) is not _Global or type(arguments) is not tuple:
    raise TypeError("a call of something that has no name")
  name = called.name
  match arguments:
    case () if name == _DICT:
      return {}
    # Python 2 writes it this way.
    case (list(pairs),) if name == _DICT:
      made = {}
      _set(made, pairs)
      # Each pair is handled once, however often the list is named.
      pairs.clear()
      return made
    case (Storage(), int(), tuple(shape), tuple(strides), *rest) if (
      name in _TENSORS
      and len(shape) == len(strides)
      and all(type(number) is int for number in (*shape, *strides))
      # requires_grad, hooks, and whether it is negated or conjugated.
      and (len(rest) < 3 or not rest[2])
    ):
      return Tensor(*arguments[:4])
    case () if name == "torch.nn.parameter.Parameter":
      return Parameter()
    case (Tensor() as tensor, *_) if name in _PARAMETERS:
      return Parameter(tensor)
    # Elements of a type that is not known here.
    case (Foreign() as kind, *_) if name in (*_TENSORS, *_PARAMETERS):
      return kind
  return Foreign(f"{name} with other arguments than tensors")


def _build(target: Any, state: Any) -> None:
  """Takes the tensor out of a state; the rest is for training."""
  if type(target) is Parameter:
    match state:
      # Tensor, then what torch sets with it; three items have no tensor.
      case (Tensor() as tensor, _, _, _, _):
        target.tensor = tensor
  elif type(target) not in (dict, Foreign):
    raise Refused(more_than_tensors(f"a state of a {type(target).__name__}"))


def _short(value: Any) -> str:
  """The beginning of a text that may be long, or not printable."""
  if type(value) in (str, int) or isinstance(value, Exception):
    return ascii(str(value))[1:-1][:120]
  return type(value).__name__


def more_than_tensors(found: str) -> str:
  """The message for a file with anything else among its tensors."""
  return (
    f"holds more than tensors: it asks for {found}. Nothing in it was run. Save"
    " the state dict alone: torch.save(model.state_dict(), path)"
  )

"""The part of the wire format of protocol buffers that weights need.

A message is a sequence of fields, each a key (the field's number and the type
of its value) and a value. The caller knows what the numbers mean. The format:
protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

# Types of values (the lowest three bits of a key). The others, 3 and 4, enclose
# groups, which were deprecated before Caffe.
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_MAX_FIELD_NUMBER = 2**29 - 1


class TruncatedError(ValueError):
  """A message ends in the middle of a field.

  Attributes:
    number: of the field; None where the message ends in its key.
    rest: the part of the field's value that is there.
  """

  def __init__(self, number: int | None, rest: memoryview):
    where = "a key" if number is None else f"field {number}"
    super().__init__(f"it ends in the middle of {where}")
    self.number = number
    self.rest = rest


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """Reads the fields of a message, in their order, without copying.

  Args:
    message: the bytes of one message.

  Yields:
    The number of a field, and its value: an unsigned int for a varint (see
    `signed`), otherwise a part of `message`.

  Raises:
    TruncatedError: if the message ends in the middle of a field.
    ValueError: if it is not a message.
  """
  position = 0
  while position < len(message):
    key, position = _varint(message, position, None)
    number, wire_type = key >> 3, key & 7
    if not 1 <= number <= _MAX_FIELD_NUMBER:
      raise ValueError(f"it has a field with the impossible number {number}")
    if wire_type == _VARINT:
      value, position = _varint(message, position, number)
      yield number, value
      continue
    if wire_type == _LENGTH_DELIMITED:
      size, position = _varint(message, position, number)
    elif wire_type in (_FIXED32, _FIXED64):
      size = 4 if wire_type == _FIXED32 else 8
    else:
      raise ValueError(f"field {number} has the unknown type {wire_type}")
    if size > len(message) - position:
      raise TruncatedError(number, message[position:])
    yield number, message[position : position + size]
    position += size


def packed_varints(values: memoryview) -> Iterator[int]:
  """Reads the varints of a packed field; raises as `fields` does."""
  position = 0
  while position < len(values):
    value, position = _varint(values, position, None)
    yield value


def signed(value: int) -> int:
  """The int64 of an unsigned varint."""
  return value - (1 << 64) if value >> 63 else value


def _varint(
  message: memoryview, position: int, number: int | None
) -> tuple[int, int]:
  """A varint of field `number`, and the position after it."""
  value = 0
  for count, byte in enumerate(message[position : position + 10]):
    value |= (byte & 0x7F) << 7 * count
    if byte < 0x80:
      if value >> 64:
        break
      return value, position + count + 1
  else:
    if len(message) - position < 10:
      raise TruncatedError(number, message[position:])
  raise ValueError("it has an integer of more than 64 bits")

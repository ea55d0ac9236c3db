import hypothesis
import hypothesis.strategies as st
import pytest
from google.protobuf import empty_pb2
from google.protobuf import message
from google.protobuf import unknown_fields

from fcn_jax.pretrained.formats import protobuf
from tests.helpers import caffe_files as written

WIRE_VALUES = st.one_of(
  st.integers(0, 2**64 - 1).map(lambda value: (0, value)),
  st.binary(min_size=8, max_size=8).map(lambda value: (1, value)),
  st.binary(max_size=200).map(lambda value: (2, value)),
  st.binary(min_size=4, max_size=4).map(lambda value: (5, value)),
)


def encoded_field(number, wire_type, value):
  if wire_type == 0:
    return b"".join(written.integer(number, value))
  if wire_type == 2:
    return b"".join(written.delimited(number, value))
  return written.varint(number << 3 | wire_type) + value


def read_fields(data):
  return [
    (number, value if isinstance(value, int) else bytes(value))
    for number, value in protobuf.fields(memoryview(data))
  ]


def protobufs_fields(data):
  """What protobuf finds in a message of which it knows no field."""
  found = []
  parsed = empty_pb2.Empty.FromString(data)
  for field in unknown_fields.UnknownFieldSet(parsed):
    size = {1: 8, 5: 4}.get(field.wire_type)
    value = field.data.to_bytes(size, "little") if size else field.data
    found.append((field.field_number, value))
  return found


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
  st.lists(st.tuples(st.integers(1, 2**29 - 1), WIRE_VALUES), max_size=5)
)
def test_fields_are_those_that_protobuf_finds(fields):
  data = b"".join(encoded_field(number, *value) for number, value in fields)
  expected = [(number, value) for number, (_, value) in fields]
  assert protobufs_fields(data) == expected
  assert read_fields(data) == expected


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(st.binary(max_size=30))
def test_bytes_that_protobuf_refuses_are_refused(data):
  try:
    found = read_fields(data)
  except ValueError:
    return
  try:
    expected = protobufs_fields(data)
  except message.DecodeError:
    pytest.fail(f"protobuf refuses {data!r}, read as {found}")
  assert found == expected


@pytest.mark.parametrize(
  "data, problem",
  [
    (b"\x08", "ends in the middle of field 1"),
    (b"\x08\x80", "ends in the middle of field 1"),
    (b"\xa2", "ends in the middle of a key"),
    (b"\x0a\x05abcd", "ends in the middle of field 1"),
    (b"\x0d123", "ends in the middle of field 1"),
    (b"\x091234567", "ends in the middle of field 1"),
    (b"\x0a" + b"\xff" * 9 + b"\x01", "ends in the middle of field 1"),
    (b"\x00\x01", "impossible number 0"),
    (b"\x80\x80\x80\x80\x80\x01\x00", "impossible number 4294967296"),
    (b"\x0b\x0c", "field 1 has the unknown type 3"),
    (b"\x0e", "field 1 has the unknown type 6"),
    (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
    (b"\x08" + b"\xff" * 20, "more than 64 bits"),
  ],
)
def test_what_is_not_a_message_is_refused_with_the_reason(data, problem):
  with pytest.raises(ValueError, match=problem):
    list(protobuf.fields(memoryview(data)))

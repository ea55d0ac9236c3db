import itertools
import time
import tracemalloc

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

from fcn_jax.pretrained.formats import caffemodel
from tests.helpers import caffe_files as written

# Of Caffe's caffe.proto: type, name and number; * is repeated, + is packed.
# As in real files, there is more than what is read.
MESSAGES = {
  "BlobShape": "int64+ dim 1",
  "BlobProto": """int64 num 1, int64 channels 2, int64 height 3, int64 width 4,
    float+ data 5, float+ diff 6, BlobShape shape 7, double+ double_data 8""",
  "UnpackedShape": "int64* dim 1",
  "UnpackedBlob": "float* data 5, UnpackedShape shape 7, double* double_data 8",
  "ParamSpec": "string name 1, float lr_mult 3",
  "LayerParameter": """string name 1, string type 2, string* bottom 3,
    string* top 4, float* loss_weight 5, ParamSpec* param 6,
    BlobProto* blobs 7, int32 phase 10, bool* propagate_down 11""",
  "V1LayerParameter": """string* bottom 2, string* top 3, string name 4,
    int32 type 5, BlobProto* blobs 6, float* blobs_lr 7""",
  "NetParameter": """string name 1, V1LayerParameter* layers 2,
    string* input 3, int32* input_dim 4, bool force_backward 5,
    LayerParameter* layer 100""",
}


def message_classes():
  """What protobuf makes of `MESSAGES`."""
  file = descriptor_pb2.FileDescriptorProto(
    name="caffe.proto", package="caffe", syntax="proto2"
  )
  for message_name, fields in MESSAGES.items():
    description = file.message_type.add(name=message_name)
    for row in fields.split(","):
      kind, name, number = row.split()
      field = description.field.add(name=name, number=int(number))
      field.label = field.LABEL_OPTIONAL
      if kind[-1] in "*+":
        field.label = field.LABEL_REPEATED
        field.options.packed = kind[-1] == "+"
      kind = kind.rstrip("*+")
      if kind in MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
      else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
      if not field.options.packed:
        field.ClearField("options")
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(
      pool.FindMessageTypeByName(f"caffe.{name}")
    )
    for name in MESSAGES
  }


CAFFE = message_classes()


def random_layers(*, seed=0):
  generator = np.random.default_rng(seed)
  shapes = {
    "conv1_1": ("Convolution", (4, 3, 3, 3), (4,)),
    "fc6": ("InnerProduct", (5, 16), (5,)),
    "upscore": ("Deconvolution", (5, 1, 4, 4)),
  }
  return {
    name: (
      kind,
      [generator.normal(size=shape).astype(np.float32) for shape in shapes],
    )
    for name, (kind, *shapes) in shapes.items()
  }


def assert_same(layers, expected):
  assert list(layers) == list(expected)
  for name, (_, blobs) in expected.items():
    assert isinstance(layers[name], tuple)
    for array, blob in zip(layers[name], blobs, strict=True):
      assert array.dtype == np.float32
      np.testing.assert_array_equal(array, blob, strict=True)


def fill_blob(blob, array, *, legacy_shape=False, values="data"):
  getattr(blob, values).extend(array.ravel().tolist())
  if legacy_shape:
    sizes = (1,) * (4 - array.ndim) + array.shape
    blob.num, blob.channels, blob.height, blob.width = sizes
  else:
    blob.shape.dim.extend(array.shape)


def save_current(path, layers):
  net = CAFFE["NetParameter"](name="a net", force_backward=True)
  net.input.append("data")
  net.layer.add(name="data", type="Data", phase=1, top=["data", "label"])
  for name, (kind, blobs) in layers.items():
    layer = net.layer.add(name=name, type=kind, bottom=["data"], top=[name])
    layer.loss_weight.append(0.5)
    layer.propagate_down.append(True)
    layer.param.add(name="shared", lr_mult=2.0)
    for array in blobs:
      fill_blob(layer.blobs.add(), array)
      layer.blobs[-1].diff.extend(np.ones(array.size).tolist())
    net.layer.add(name=f"relu of {name}", type="ReLU", top=[name])
  path.write_bytes(net.SerializeToString())


def save_v1(path, layers, *, legacy_shape):
  net = CAFFE["NetParameter"](name="a net", input=["data"])
  net.input_dim.extend([1, 3, 500, 500])
  for name, (kind, blobs) in layers.items():
    layer = net.layers.add(name=name, bottom=["data"], top=[name])
    layer.type = written.V1_TYPES[kind]
    layer.blobs_lr.extend([1.0, 2.0])
    for array in blobs:
      fill_blob(layer.blobs.add(), array, legacy_shape=legacy_shape)
  path.write_bytes(net.SerializeToString())


def one_layer(blob):
  """A file of which protobuf wrote the blob."""
  field = written.delimited(7, blob.SerializeToString())
  name = written.delimited(1, b"conv")
  return b"".join(written.delimited(100, name + field))


def in_four_dimensions(layers):
  return {
    name: (
      kind,
      [blob.reshape((1,) * (4 - blob.ndim) + blob.shape) for blob in blobs],
    )
    for name, (kind, blobs) in layers.items()
  }


def test_a_current_file_that_protobuf_wrote_is_read(tmp_path):
  path = tmp_path / "net.caffemodel"
  save_current(path, random_layers())
  assert_same(caffemodel.read(path), random_layers())
  assert caffemodel.is_caffe(path)


@pytest.mark.parametrize("legacy_shape", [False, True])
def test_a_v1_file_that_protobuf_wrote_is_read(tmp_path, legacy_shape):
  path = tmp_path / "net.caffemodel"
  layers = random_layers()
  save_v1(path, layers, legacy_shape=legacy_shape)
  expected = in_four_dimensions(layers) if legacy_shape else layers
  assert_same(caffemodel.read(str(path)), expected)
  assert caffemodel.is_caffe(path)


@pytest.mark.parametrize("values", ["data", "double_data"])
@pytest.mark.parametrize("blob", ["BlobProto", "UnpackedBlob"])
def test_values_are_read_packed_and_unpacked_single_and_double(
  tmp_path, blob, values
):
  array = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
  filled = CAFFE[blob]()
  fill_blob(filled, array, values=values)
  path = tmp_path / "net.caffemodel"
  path.write_bytes(one_layer(filled))
  assert_same(caffemodel.read(path), {"conv": ("", [array])})


@pytest.mark.parametrize("legacy_shape", [False, True])
@pytest.mark.parametrize("v1", [False, True])
def test_what_these_tests_write_is_what_protobuf_reads(
  tmp_path, v1, legacy_shape
):
  path = tmp_path / "net.caffemodel"
  layers = random_layers()
  written.write(path, layers, v1=v1, legacy_shape=legacy_shape)
  net = CAFFE["NetParameter"].FromString(path.read_bytes())
  found = net.layers if v1 else net.layer
  for layer, (name, (kind, blobs)) in zip(found, layers.items(), strict=True):
    assert layer.name == name
    assert layer.type == (written.V1_TYPES[kind] if v1 else kind)
    for blob, array in zip(layer.blobs, blobs, strict=True):
      np.testing.assert_array_equal(
        np.array(blob.data, np.float32), array.ravel(), strict=True
      )
      if legacy_shape:
        shape = (blob.num, blob.channels, blob.height, blob.width)
        assert shape == (1,) * (4 - array.ndim) + array.shape
        assert not blob.HasField("shape")
      else:
        assert tuple(blob.shape.dim) == array.shape
        assert not blob.HasField("num")
  expected = in_four_dimensions(layers) if legacy_shape else layers
  assert_same(caffemodel.read(path), expected)


def test_arrays_are_views_of_the_file_that_nobody_can_write_to(tmp_path):
  path = tmp_path / "net.caffemodel"
  layers = {"fc6": ("InnerProduct", [np.ones((1000, 2000), np.float32)])}
  written.write(path, layers)
  tracemalloc.start()
  (array,) = caffemodel.read(path)["fc6"]
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 200_000 < array.nbytes
  assert not array.flags.writeable
  with pytest.raises(ValueError, match="read-only"):
    array[0, 0] = 2
  # The file is not closed as long as there are arrays.
  np.testing.assert_array_equal(array, layers["fc6"][1][0])


@pytest.mark.parametrize("v1", [False, True])
def test_a_file_that_is_cut_anywhere_is_never_read_as_another(tmp_path, v1):
  path = tmp_path / "net.caffemodel"
  ones = [np.ones((2, 1, 1, 2), np.float32), np.ones(2, np.float32)]
  layers = {name: ("Convolution", ones) for name in ("conv1", "conv2")}
  written.write(path, layers, v1=v1)
  whole = path.read_bytes()
  # A message may end between two fields: there, no one can see a cut.
  conv1 = {"conv1": layers["conv1"]}
  written.write(path, conv1, v1=v1)
  boundary = path.stat().st_size
  for size in range(len(whole)):
    path.write_bytes(whole[:size])
    if size == boundary:
      assert_same(caffemodel.read(path), conv1)
    else:
      with pytest.raises(ValueError) as raised:
        caffemodel.read(path)
      assert type(raised.value) is ValueError
      assert str(path) in str(raised.value)
  path.write_bytes(whole)
  assert_same(caffemodel.read(path), layers)


def test_a_truncated_file_is_told_by_its_size_and_the_layer_it_ends_in(
  tmp_path,
):
  path = tmp_path / "net.caffemodel"
  written.write(path, random_layers())
  whole = path.read_bytes()
  cut = whole.index(b"fc6") + 100
  path.write_bytes(whole[:cut])
  with pytest.raises(
    ValueError, match=rf"truncated.* {cut} bytes .* middle of layer 'fc6'"
  ):
    caffemodel.read(path)
  path.write_bytes(whole[: whole.index(b"conv1_1") + 3])
  with pytest.raises(ValueError, match="middle of a layer whose name is lost"):
    caffemodel.read(path)
  assert caffemodel.is_caffe(path)


def test_any_byte_that_is_wrong_gives_a_value_error_or_arrays(tmp_path):
  path = tmp_path / "net.caffemodel"
  layers = {"conv1": ("Convolution", [np.ones((2, 1, 2), np.float32)])}
  written.write(path, layers)
  whole = path.read_bytes()
  for position in range(len(whole)):
    for byte in (0x00, 0x7F, 0xFF, whole[position] ^ 1):
      damaged = bytearray(whole)
      damaged[position] = byte
      path.write_bytes(damaged)
      try:
        for blobs in caffemodel.read(path).values():
          assert all(blob.dtype == np.float32 for blob in blobs)
      except ValueError as error:
        assert type(error) is ValueError
        assert str(path) in str(error)


def file_with(*layers):
  return b"".join(itertools.chain(*layers))


def blob_of(shape, count):
  blob = CAFFE["BlobProto"](data=[1.0] * count)
  blob.shape.dim.extend(shape)
  return blob


CONV1 = written.layer("conv1", "Convolution", [np.ones((2, 3), np.float32)])
RELU1 = written.layer("relu1", "ReLU", [])


# With the reasons for which they are refused.
OTHER_FILES = [
  (b"", "is empty"),
  (b'name: "FCN"\nlayer { name: "data" }\n', r"is a text.*\.prototxt"),
  (b"\n\n# Fully convolutional\n" * 9, r"is a text.*\.prototxt"),
  (b"\n <!DOCTYPE html><html>\xc3\xa4</html>", "is a web page"),
  # The beginnings of .zip (and .pth, .npz), .h5, older .pth, .safetensors.
  (b"PK\x03\x04\x14\x00\x08\x08", "is not a .caffemodel"),
  (b"\x89HDF\r\n\x1a\n\x00\x00", "is not a .caffemodel"),
  (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is not a .caffemodel"),
  (b"\x40\x00\x00\x00\x00\x00\x00\x00{", "is not a .caffemodel"),
  # A .solverstate (iteration and name), a .binaryproto (a blob), others.
  (b"\x08\x64\x12\x05a.caf", "is not a .caffemodel"),
  (blob_of((2,), 2).SerializeToString(), "is not a .caffemodel"),
  (b"\x10\x05", "is not a .caffemodel"),
  (b"\n\x05a net", "is not a .caffemodel"),
]
UNUSABLE_FILES = [
  (file_with(RELU1, RELU1), "2 layers and no weights"),
  (file_with(CONV1, RELU1, CONV1), "two layers named 'conv1'"),
  (file_with(CONV1) + b"\x0f", "damaged: after layer 'conv1', .* type 7"),
  (file_with(CONV1) + b"\xa2", "truncated.* ends after layer 'conv1'"),
  (
    one_layer(blob_of((2, 3), 5)),
    r"layer 'conv', in blob 0, there are 5 values.* shape \[2, 3\]",
  ),
  (one_layer(blob_of((2, 3), 0)), "0 values"),
  (one_layer(blob_of((0, 2**62), 0)), "0 values"),
  (one_layer(blob_of((-2, -3), 6)), r"shape \[-2, -3\]"),
  (one_layer(CAFFE["BlobProto"](data=[1.0, 2.0])), r"shape \[\]"),
  (one_layer(CAFFE["BlobProto"](num=2, data=[1, 2])), r"\[2, 0, 0, 0\]"),
]


@pytest.mark.parametrize(
  "content, problem",
  OTHER_FILES + UNUSABLE_FILES,
  # Not the bytes.
  ids=lambda value: value if isinstance(value, str) else "file",
)
def test_a_file_without_usable_weights_is_refused_with_the_reason(
  tmp_path, content, problem
):
  path = tmp_path / "net.caffemodel"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=problem) as raised:
    caffemodel.read(path)
  assert str(path) in str(raised.value)


@pytest.mark.parametrize(
  "content, problem",
  [
    (lambda: one_layer(blob_of((1,) * 33, 1)), "more than 32 dimensions"),
    (
      lambda: one_layer(blob_of((1,) * 100_000, 1)),
      "more than 32 dimensions",
    ),
    (lambda: file_with(CONV1) + b"\xa2\x06\x00" * 3_000_000, "100000 fields"),
    (
      lambda: one_layer(CAFFE["UnpackedBlob"](data=[1.0] * 100_001)),
      "in blob 0, it has more than 100000 fields",
    ),
    (
      lambda: b"".join(written.delimited(100, b"\x12\x00" * 3_000_000)),
      "it has more than 100000 fields",
    ),
    # A graph of TensorFlow: field 1 has its nodes.
    (lambda: b"\n\x03\n\x01a" * 9 + file_with(CONV1), "is not a .caffemodel"),
  ],
)
def test_files_that_would_take_long_are_refused(tmp_path, content, problem):
  path = tmp_path / "net.caffemodel"
  path.write_bytes(content())
  start = time.process_time()
  with pytest.raises(ValueError, match=problem):
    caffemodel.read(path)
  assert time.process_time() - start < 10


def test_a_file_that_is_not_there_is_named(tmp_path):
  path = tmp_path / "net.caffemodel"
  for missing in (path, tmp_path):
    with pytest.raises(ValueError, match=f"There is no file {missing}"):
      caffemodel.read(missing)


def test_other_files_are_not_taken_for_caffes(tmp_path):
  path = tmp_path / "net.pth"
  for content, _ in OTHER_FILES:
    path.write_bytes(content)
    assert not caffemodel.is_caffe(path), content
  assert not caffemodel.is_caffe(tmp_path / "missing")


def test_of_two_shapes_the_older_counts_as_in_caffe(tmp_path):
  blob = blob_of((6,), 6)
  blob.num, blob.channels, blob.height, blob.width = 1, 1, 2, 3
  path = tmp_path / "net.caffemodel"
  path.write_bytes(one_layer(blob))
  assert caffemodel.read(path)["conv"][0].shape == (1, 1, 2, 3)


def test_a_safetensors_file_is_no_caffemodel_whatever_its_length(tmp_path):
  path = tmp_path / "net.safetensors"
  # As a key of field 2, in which nets have layers, and a size.
  header = b"{}".ljust(0x0512)
  path.write_bytes(len(header).to_bytes(8, "little") + header)
  assert not caffemodel.is_caffe(path)

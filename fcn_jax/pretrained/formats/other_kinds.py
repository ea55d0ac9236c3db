"""Files that hold no weights that can be read here, by their first bytes.

Each is named for what it is, with the command that makes a readable file of it.
"""

import pathlib
import shlex
from collections.abc import Collection

_SAVE = (
  "save the state dict alone, where the program that wrote it is installed:"
  " torch.save(model.state_dict(), path)"
)
_ARCHIVES = (
  (b"\x1f\x8b", "gzip", "gunzip --keep {}"),
  (b"BZh", "bzip2", "bunzip2 --keep {}"),
  (b"\xfd7zXZ\0", "xz", "unxz --keep {}"),
  (b"\x28\xb5\x2f\xfd", "zstd", "unzstd {}"),
  (b"7z\xbc\xaf\x27\x1c", "7z", "7z x {}"),
  (b"Rar!", "rar", "unrar x {}"),
)
_ONNX = (
  "python -c 'import sys, onnx, onnx.numpy_helper as h, safetensors.numpy as s;"
  " s.save_file({{t.name: h.to_array(t) for t in"
  " onnx.load(sys.argv[1]).graph.initializer}}, sys.argv[1] +"
  ' ".safetensors")\' {}'
)


def of(path: pathlib.Path, start: bytes) -> str | None:
  """What a file is, and what to do; None if that is not known.

  Args:
    path: of the file, for commands.
    start: its first 512 bytes at least, if it has so many.
  """
  name = shlex.quote(str(path))
  for magic, kind, command in _ARCHIVES:
    if start.startswith(magic):
      return (
        f"this is a {kind} file, packed around another one. Unpack it with:"
        f" {command.format(name)}"
      )
  if start[257:262] == b"ustar":
    return (
      "this is a tar archive. Unpack it, and give the file of weights in it:"
      f" tar -xf {name}"
    )
  if start.startswith(b"version https://git-lfs"):
    return (
      "this is a Git LFS pointer, not the file itself. Fetch the file with: git"
      " lfs pull"
    )
  if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
    return (
      "this is a web page, not the file. Open the address in a browser to see"
      " what it says, and download the file itself"
    )
  if start.startswith(b"\x93NUMPY"):
    return (
      "this is a NumPy file with one array, and weights are arrays by name."
      " Save all of them: safetensors.numpy.save_file({name: array, ...}, path)"
    )
  if start.startswith(b"GGUF") or start[4:8] == b"TFL3":
    kind = "GGUF" if start.startswith(b"GGUF") else "TensorFlow Lite"
    return f"this is a {kind} file of a network for inference. Instead, {_SAVE}"
  if _is_onnx(start) or path.suffix == ".onnx":
    return (
      "this is an ONNX file. Better give the state dict that it was exported"
      f" from; its arrays may have other names, and are saved by: "
      f"{_ONNX.format(name)}"
    )
  if path.suffix in (".pb", ".pbtxt", ".meta", ".index"):
    return (
      "this is a file of TensorFlow, which is not read here. Save its variables"
      " in TensorFlow by the names of torchvision or of the papers, with"
      " kernels [outputs, inputs, rows, columns]:"
      " safetensors.numpy.save_file({name: array, ...}, path)"
    )
  # Protocols 2 to 5, of which torch.save uses the first with a magic number.
  if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
    return (
      "this is a pickle of Python that torch.save did not write, and loading"
      " one may run any code, so nothing in it was read. If you trust its"
      " author, load it and save its arrays:"
      " safetensors.numpy.save_file({name: array, ...}, path)"
    )
  return None


def of_zip(path: pathlib.Path, entries: Collection[str]) -> str:
  """What a zip file is that torch.save did not write, and what to do."""
  name = shlex.quote(str(path))
  if entries and all(entry.endswith(".npy") for entry in entries):
    return (
      "this is an .npz file of NumPy, not one that torch.save made. Convert it"
      " with: python -c 'import sys, numpy, safetensors.numpy as s;"
      " s.save_file(dict(numpy.load(sys.argv[1])),"
      f' sys.argv[1] + ".safetensors")\' {name}'
    )
  if "model.weights.h5" in entries:
    return (
      "this is a .keras file, not one that torch.save made. Load it in Keras"
      ' and save its weights: model.save_weights("model.h5")'
    )
  if any(entry.endswith(".npy") for entry in entries) or not entries:
    return "this is a zip file, but not one that torch.save made"
  return (
    "this is a zip file, but not one that torch.save made, as there is no"
    " data.pkl in its folder. Unpack it, and give the file of weights in it:"
    f" unzip {name}"
  )


def _is_onnx(start: bytes) -> bool:
  """Whether it begins with a version and a producer, as `ModelProto` does."""
  return (
    start[:1] == b"\x08"
    and start[1:2] < b"\x20"
    and (start[2:3] == b"\x12" or start[2:3] == b"\x3a")
  )

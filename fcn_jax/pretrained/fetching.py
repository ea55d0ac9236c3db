"""Gets files of weights from their publishers, by name."""

import hashlib
import os
import pathlib
import urllib.request
from typing import NamedTuple

from tqdm import auto as tqdm

from fcn_jax import writing

_TORCHVISION = "https://download.pytorch.org/models/"
# "The pre-trained models provided in this library may have their own licenses
# or terms and conditions derived from the dataset used for training."
# (README of github.com/pytorch/vision)
_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); see the terms of {data}"
_FCN = "http://dl.caffe.berkeleyvision.org/"
_FCN_LICENCE = "unrestricted (BVLC model license)"
_VGG = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
_VGG_LICENCE = "CC BY"
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without an answer


class Source(NamedTuple):
  """Where a file of weights comes from.

  Attributes:
    network: whose weights they are, a name that `fcn-jax convert import
      --network` knows.
    url: the publisher's address; it ends with the name of the file.
    checksum: "sha256:" or "sha1:" and hexadecimal digits, all or the first ones
      as far as they are published; None if none is.
    size: of the file in MiB; None if it is not published.
    licence: what the publisher says.
  """

  network: str
  url: str
  checksum: str | None
  size: int | None
  licence: str

  @property
  def file(self) -> str:
    """Name of the file."""
    return self.url.rpartition("/")[2]


def _torchvision(network, file, size, data="ImageNet"):
  # The name of a file has the first digits of its SHA-256.
  digits = file.removesuffix(".pth").rpartition("-")[2]
  return Source(
    network,
    _TORCHVISION + file,
    f"sha256:{digits}",
    size,
    _TORCHVISION_LICENCE.format(data=data),
  )


def _caffe(network, file, sha1=None, size=None):
  url = (_VGG if file.startswith("VGG") else _FCN) + f"{file}.caffemodel"
  licence = _VGG_LICENCE if file.startswith("VGG") else _FCN_LICENCE
  return Source(network, url, sha1 and f"sha1:{sha1}", size, licence)


# Addresses, sizes and digits: torchvision/models of github.com/pytorch/vision;
# caffemodel-url of github.com/shelhamer/fcn.berkeleyvision.org; models of
# github.com/BVLC/caffe; gist ksimonyan/211839e770f7b538e2d8 (VGG16) and
# ksimonyan/3785162f95cd2d5fee77 (VGG19). The SHA-1 of fcn8s-heavy-pascal and
# fcn32s-heavy-pascal are those of OpenCV's test data, download_models.py.
SOURCES = {
  "fcn_resnet50_coco": _torchvision(
    "fcn_resnet50", "fcn_resnet50_coco-1167a1af.pth", 135, "COCO"
  ),
  "fcn_resnet101_coco": _torchvision(
    "fcn_resnet101", "fcn_resnet101_coco-7ecb50ca.pth", 208, "COCO"
  ),
  "resnet50_imagenet": _torchvision("resnet50", "resnet50-0676ba61.pth", 98),
  "resnet50_imagenet_v2": _torchvision("resnet50", "resnet50-11ad3fa6.pth", 98),
  "resnet101_imagenet": _torchvision(
    "resnet101", "resnet101-63fe2227.pth", 171
  ),
  "resnet101_imagenet_v2": _torchvision(
    "resnet101", "resnet101-cd907fc2.pth", 171
  ),
  "vgg11_imagenet": _torchvision("vgg11", "vgg11-8a719046.pth", 507),
  "vgg11_bn_imagenet": _torchvision("vgg11_bn", "vgg11_bn-6002323d.pth", 507),
  "vgg13_imagenet": _torchvision("vgg13", "vgg13-19584684.pth", 508),
  "vgg13_bn_imagenet": _torchvision("vgg13_bn", "vgg13_bn-abd245e5.pth", 508),
  "vgg16_imagenet": _torchvision("vgg16", "vgg16-397923af.pth", 528),
  "vgg16_bn_imagenet": _torchvision("vgg16_bn", "vgg16_bn-6c64b313.pth", 528),
  "vgg19_imagenet": _torchvision("vgg19", "vgg19-dcbb9e9d.pth", 548),
  "vgg19_bn_imagenet": _torchvision("vgg19_bn", "vgg19_bn-c79401a0.pth", 548),
  "alexnet_imagenet": _torchvision("alexnet", "alexnet-owt-7be5be79.pth", 233),
  "googlenet_imagenet": _torchvision("googlenet", "googlenet-1378be20.pth", 50),
  "caffe-vgg16": _caffe(
    "caffe-vgg16",
    "VGG_ILSVRC_16_layers",
    "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
    528,
  ),
  "caffe-vgg19": _caffe(
    "caffe-vgg19",
    "VGG_ILSVRC_19_layers",
    "239785e7862442717d831f682bb824055e51e9ba",
    548,
  ),
  "caffe-caffenet": _caffe(
    "caffe-caffenet",
    "bvlc_reference_caffenet",
    "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
  ),
  "caffe-googlenet": _caffe(
    "caffe-googlenet",
    "bvlc_googlenet",
    "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
  ),
  "voc-fcn32s": _caffe(
    "voc-fcn32s",
    "fcn32s-heavy-pascal",
    "05eb922d7829c39448f57e5ab9d8cd75d6c0be6d",
  ),
  "voc-fcn16s": _caffe("voc-fcn16s", "fcn16s-heavy-pascal"),
  "voc-fcn8s": _caffe(
    "voc-fcn8s",
    "fcn8s-heavy-pascal",
    "c449ea74dd7d83751d1357d6a8c323fcf4038962",
  ),
  "voc-fcn8s-atonce": _caffe("voc-fcn8s-atonce", "fcn8s-atonce-pascal"),
  "voc-fcn-alexnet": _caffe("voc-fcn-alexnet", "fcn-alexnet-pascal"),
  **{
    f"{data}-fcn{stride}s": _caffe(
      f"{data}-fcn{stride}s", f"{data}-fcn{stride}s-heavy"
    )
    for data in ("pascalcontext", "siftflow")
    for stride in (32, 16, 8)
  },
  "nyud-fcn32s-color": _caffe("nyud-fcn32s-color", "nyud-fcn32s-color-heavy"),
}


def cache_dir() -> pathlib.Path:
  """Where `fetch` keeps files: in $XDG_CACHE_HOME, or ~/.cache."""
  home = os.environ.get("XDG_CACHE_HOME")
  cache = pathlib.Path(home) if home else pathlib.Path.home() / ".cache"
  return cache / "fcn_jax" / "weights"


def fetch(name: str, folder: str | pathlib.Path | None = None) -> pathlib.Path:
  """Gets a file of published weights, and checks it.

  A file of this name that is already in the folder, or in the working
  directory, is taken; otherwise it is downloaded, with a progress bar.

  Args:
    name: one of `SOURCES`.
    folder: where to keep it; by default `cache_dir()`.

  Returns:
    The path of the file, for `load`.

  Raises:
    ValueError: there is no such name, or the file is not the one published. If
      it was there before, it is not deleted.
    OSError: it cannot be downloaded or written; the message says which file to
      bring.
  """
  source = _source(name)
  folder = cache_dir() if folder is None else pathlib.Path(folder)
  for path in (folder / source.file, pathlib.Path(source.file)):
    if path.is_file():
      _check(
        path,
        source,
        f"{path} is left as it is; move it away to download it anew.",
      )
      return path
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / source.file
  writing.remove_left_overs(folder)
  # Two programs that fetch at the same time fetch the same.
  with writing.whole(path, replace=True) as partial:
    try:
      with partial.open("wb") as file:
        _download(source, file)
    except OSError as error:
      raise writing.WriteError(
        f"{source.url} cannot be downloaded ({error}). Download it elsewhere, "
        f"and put it here as {path}."
      ) from error
    _check(partial, source, "What was downloaded is not kept.")
  return path


def _source(name):
  if name not in SOURCES:
    raise ValueError(
      f"there are no weights named {name!r}. The known ones are "
      f"{', '.join(SOURCES)}."
    )
  return SOURCES[name]


def _download(source, file):
  """Writes what the publisher's address gives to a file."""
  with (
    urllib.request.urlopen(source.url, timeout=_TIMEOUT) as response,
    tqdm.tqdm(
      desc=source.file,
      total=response.length,
      unit="B",
      unit_scale=True,
      disable=None,
    ) as bar,
  ):
    expected = response.length
    while chunk := response.read(_CHUNK):
      file.write(chunk)
      bar.update(len(chunk))
  if expected is not None and file.tell() != expected:
    raise OSError(f"it ended after {file.tell()} of {expected} bytes")


def _check(path, source, remedy):
  """Raises a `ValueError` if a file is not the one that was published."""
  if source.checksum is None:
    return
  method, _, expected = source.checksum.partition(":")
  with path.open("rb") as file:
    found = hashlib.file_digest(file, method).hexdigest()
  if not found.startswith(expected):
    raise ValueError(
      f"it is not the file that {source.url} published: its {method.upper()} "
      f"begins with {found[: len(expected)]}, not with {expected}. {remedy}"
    )

"""Finds which network a file of weights belongs to."""

import dataclasses

import numpy as np

import fcn_jax as fcn
from fcn_jax.cli import published
from fcn_jax.pretrained import papers_names
from fcn_jax.pretrained import weight_file

# Layers of bilinear interpolation, and torchvision's last dense layer.
_UPSAMPLING = "upscore"
_LAST = "classifier.6"


def guess(file: weight_file.WeightFile) -> tuple[str, published.Published]:
  """Finds which network a file has the weights of.

  Returns:
    Its name, one of `published.NETWORKS` if possible, and the network.

  Raises:
    ValueError: if the file fits several networks or none.
  """
  if file.naming == "caffe":
    name = _guess_caffe(file)
    return name, published.NETWORKS[name]
  found = None
  if file.naming == "torchvision":
    found = _guess_torchvision(file)
  elif file.naming == "papers":
    found = _guess_papers(file)
  if found is None:
    raise ValueError(_unknown(file))
  return found


def named(name: str, file: weight_file.WeightFile) -> published.Published:
  """The network of a name, with the classes and heads of a file."""
  network = published.NETWORKS[name]
  if file.naming == "caffe" or network.dataset is None:
    return network
  if network.options.get("architecture") == "fcn_resnet":
    return _with_heads(network, file.arrays)
  classes = _num_classes(file.arrays.get("score_fr.bias"), network.num_classes)
  return _with_classes(network, classes)


def _with_classes(network, num_classes):
  """An FCN, maybe for classes of somebody's own."""
  if num_classes == network.num_classes:
    return network
  return dataclasses.replace(network, num_classes=num_classes, dataset="folder")


def _with_heads(network, source):
  """Torchvision's FCN with the classes and the auxiliary head of a file.

  The head is left out if it is for other classes: it does not predict.
  """
  classes = _num_classes(source.get("classifier.4.bias"), network.num_classes)
  auxiliary = _num_classes(source.get("aux_classifier.4.bias"), None)
  options = {**network.options, "auxiliary": auxiliary == classes}
  network = dataclasses.replace(network, options=options)
  return _with_classes(network, classes)


def _unknown(file):
  """The message for a network that is not known here."""
  table, missing = weight_file.closest(file.arrays, _tables())
  text = (
    f"{file.path} is not a network that is known here. It has names such as "
    f"{weight_file.some(tuple(file.arrays))}"
  )
  if missing:
    text += f", but {table.backbone} has {weight_file.some(missing)}, too"
  else:
    text += f"; it has all of {table.backbone}, and more or other layers"
  return (
    f"{text}. If it is a variant of one of these, name that one as --network: "
    f"{', '.join(published.NETWORKS)}."
  )


def _tables():
  return weight_file.published_tables()


def _guess_torchvision(file):
  names = fcn.pretrained.torchvision_names
  source = {
    name: array
    for name, array in file.arrays.items()
    if not name.startswith(_UPSAMPLING)
  }
  name = names.guess(source)
  if name is None:
    return None
  network = published.NETWORKS[name]
  scores = source.get("score_fr.bias")
  if "score_fr.weight" in source or any(x.startswith("score_") for x in source):
    # An FCN of this package, exported without saying so.
    backbone = names.CLASSIFIERS[name]
    last = "fc" if f"{_LAST}.bias" not in source else _LAST
    scores = source.get("score_fr.bias", source.get(f"{last}.bias"))
    stride = 32 >> papers_names.num_skips(source)
    options = {**network.options, "backbone": backbone, "stride": stride}
    classes = _num_classes(scores, 1)
    network = published.Published(options, classes, "folder")
    return f"FCN-{stride}s on {backbone}", network
  if network.dataset is None:
    return name, network
  return name, _with_heads(network, source)


def _guess_papers(file):
  """The networks of the papers, under their names in PyTorch or Keras."""
  convolutions = {
    name for name in file.arrays if name.startswith(("conv", "inception"))
  }
  fitting = [
    table.backbone
    for table in _tables()
    if table.naming == "papers" and table.names == convolutions
  ]
  if len(fitting) != 1:
    return None
  (backbone,) = fitting
  name = f"caffe-{backbone}"
  scores = file.arrays.get("score_fr.bias")
  if scores is None:
    if name in published.CAFFE:
      return name, published.CAFFE[name]
    return backbone, published.classifier(backbone, "caffe")
  classes = _num_classes(scores, 1)
  stride = 32 >> papers_names.num_skips(file.arrays)
  for name, network in published.CAFFE.items():
    options = network.options
    if (
      options["backbone"] == backbone
      and options["stride"] == stride
      and network.num_classes == classes
      and not options.get("at_once")
    ):
      return name, network
  options = {
    "backbone": backbone,
    "stride": stride,
    "padding": "caffe",
    "inputs": "caffe",
    "normalization": "none",
  }
  network = published.Published(options, classes, "folder")
  return f"FCN-{stride}s on {backbone}", network


def _num_classes(bias, default):
  """Classes by a score layer's bias; one score is that of a second class."""
  if bias is None or np.ndim(bias) != 1:
    return default
  return max(len(bias), 2)


def _guess_caffe(file):
  """One of `published.CAFFE`; by the names and the numbers of classes first.

  Matching all arrays with a network takes a second.
  """
  has_one = [
    name
    for name, one in published.CAFFE.items()
    if one.dataset is None and _has_backbone(file, one.model())
  ]
  released = {
    name: one.network() for name, one in fcn.models.released.NETWORKS.items()
  }
  fitting = [
    name
    for name, model in released.items()
    if _may_fit(file, model) and _fits(file, model)
  ]
  if not fitting:
    num_unused = {
      name: len(report.unused)
      for name in has_one
      if (report := _beginning(file, published.CAFFE[name].model()))
    }
    # The layers of VGG16 are among those of VGG19.
    fewest = min(num_unused.values(), default=0)
    fitting = [name for name, num in num_unused.items() if num == fewest]
    # Other layers are missing or of another shape, which `import` names. The
    # last one has the most layers.
    fitting = fitting or has_one[-1:]
  if len(fitting) != 1:
    which = f"may be any of {', '.join(fitting)}" if fitting else "is none"
    layers = tuple(dict.fromkeys(x.rsplit("/", 1)[0] for x in file.arrays))
    raise ValueError(
      f"{file.path} {which} of the published networks. Its layers are "
      f"{weight_file.some(layers)}; VGG16's are conv1_1, conv1_2, conv2_1 and "
      "so on. Name the network that it is, or is a variant of, as --network: "
      f"{', '.join(published.CAFFE)}."
    )
  if fitting[0] not in published.NETWORKS:
    raise ValueError(
      f"{file.path} is {fitting[0]}, which sees more than the colours of "
      "pictures, as the commands have them. Load it in Python: "
      "fcn.pretrained.load(path, "
      f"fcn.models.released.make({fitting[0]!r}))."
    )
  return fitting[0]


def _has_backbone(file, model):
  """Whether a .caffemodel has the convolutions of a backbone, by name."""
  modalities = ("",)
  if isinstance(model, fcn.models.LateFusion):
    modalities = tuple(name for name, _ in model.modalities)
  names = fcn.pretrained.caffe_names.layers(model.backbone)
  return all(
    any(f"{name}{suffix}/0" in file.arrays for name in others)
    for suffix in modalities
    for others in names
  )


def _may_fit(file, model):
  """Whether a .caffemodel has the layers of a released network."""
  classes = {
    len(array.reshape(-1))
    for name, array in file.arrays.items()
    if name.startswith(("score_fr", "score-fr")) and name.endswith("/1")
  }
  return classes == {*model.heads.values()} and _has_backbone(file, model)


def _fits(file, model):
  """Whether a file has the arrays of a network, no more and no fewer."""
  report = _compared(file, model)
  return report is not None and not (
    report.new() or report.binary or report.unused
  )


def _beginning(file, model):
  """The report on a file that has all of a network except its score layers."""
  report = _compared(file, model)
  if report is None or report.reshaped or report.extended:
    return None
  return None if missing_in_backbone(report) else report


def missing_in_backbone(report: fcn.pretrained.Report) -> tuple[str, ...]:
  """The arrays, except score layers, that a network did not get from a file."""
  return tuple(
    name for name in report.new() if not name.startswith("params/score_")
  )


def _compared(file, model):
  try:
    return fcn.pretrained.compare(file, model)
  except ValueError:
    # Upsampling or skips of another network.
    return None

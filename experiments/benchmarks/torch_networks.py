"""torchvision's networks in PyTorch, of any width, with torchvision's names.

Written from the tables of the papers and from torchvision's documentation of
where it departs from them, as torchvision does not go with every PyTorch.
Each has `features`, the maps that this package scores, by its own names, and
`convolved`, the classifier slid over a map; called, it is the classifier.
"""

import torch
from torch import nn
from torch.nn import functional

VGG_DEPTHS = {
  "vgg11": (1, 1, 2, 2, 2),
  "vgg13": (2, 2, 2, 2, 2),
  "vgg16": (2, 2, 3, 3, 3),
  "vgg19": (2, 2, 4, 4, 4),
}
RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# Szegedy et al. (2015), Table 1.
INCEPTIONS = {
  "3a": (64, 96, 128, 16, 32, 32),
  "3b": (128, 128, 192, 32, 96, 64),
  "4a": (192, 96, 208, 16, 48, 64),
  "4b": (160, 112, 224, 24, 64, 64),
  "4c": (128, 128, 256, 24, 64, 64),
  "4d": (112, 144, 288, 32, 64, 64),
  "4e": (256, 160, 320, 32, 128, 128),
  "5a": (256, 160, 320, 32, 128, 128),
  "5b": (384, 192, 384, 48, 128, 128),
}


def dense_as_convolution(dense, inputs, *, padding=0):
  """A dense layer at each place of a map, as a kernel as large as its map."""
  channels = inputs.shape[1]
  side = round((dense.in_features / channels) ** 0.5)
  kernel = dense.weight.view(-1, channels, side, side)
  return functional.conv2d(inputs, kernel, dense.bias, padding=padding)


class Sequential(nn.Module):
  """What VGG and AlexNet share: poolings in `features`, then dense layers."""

  def __init__(self, layers, side, classifier, padding):
    super().__init__()
    self.features = nn.Sequential(*layers)
    self.avgpool = nn.AdaptiveAvgPool2d((side, side))
    self.classifier = nn.Sequential(*classifier)
    self.padding = padding

  def maps(self, images):
    result, pools = {}, 0
    for layer in self.features:
      images = layer(images)
      if isinstance(layer, nn.MaxPool2d):
        pools += 1
        result[self.pool_names[pools - 1]] = images
    return result

  def convolved(self, images):
    features = self.maps(images)
    values = features[self.pool_names[-1]]
    fc6, fc7, score = (m for m in self.classifier if isinstance(m, nn.Linear))
    values = dense_as_convolution(fc6, values, padding=self.padding)
    values = dense_as_convolution(fc7, torch.relu(values))
    features["fc7"] = torch.relu(values)
    features["score_fr"] = dense_as_convolution(score, features["fc7"])
    return features

  def forward(self, images):
    values = self.avgpool(self.features(images))
    return self.classifier(torch.flatten(values, 1))


class VGG(Sequential):
  """Configurations A, B, D and E of Simonyan and Zisserman (2015)."""

  pool_names = tuple(f"pool{block}" for block in range(1, 6))

  def __init__(self, depths, widths, head_width, num_classes, *, normalized):
    layers, channels = [], 3
    for depth, width in zip(depths, widths, strict=True):
      for _ in range(depth):
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if normalized else []
        layers.append(nn.ReLU())
        channels = width
      layers.append(nn.MaxPool2d(2, 2))
    classifier = (
      nn.Linear(channels * 7 * 7, head_width),
      nn.ReLU(),
      nn.Dropout(),
      nn.Linear(head_width, head_width),
      nn.ReLU(),
      nn.Dropout(),
      nn.Linear(head_width, num_classes),
    )
    super().__init__(layers, 7, classifier, padding=3)


class AlexNet(Sequential):
  """Krizhevsky (2014): of one column, without normalisation."""

  pool_names = ("pool1", "pool2", "pool5")

  def __init__(self, widths, head_width, num_classes):
    first, second, third, fourth, fifth = widths
    layers = (
      nn.Conv2d(3, first, 11, stride=4, padding=2),
      nn.ReLU(),
      nn.MaxPool2d(3, 2),
      nn.Conv2d(first, second, 5, padding=2),
      nn.ReLU(),
      nn.MaxPool2d(3, 2),
      nn.Conv2d(second, third, 3, padding=1),
      nn.ReLU(),
      nn.Conv2d(third, fourth, 3, padding=1),
      nn.ReLU(),
      nn.Conv2d(fourth, fifth, 3, padding=1),
      nn.ReLU(),
      nn.MaxPool2d(3, 2),
    )
    classifier = (
      nn.Dropout(),
      nn.Linear(fifth * 6 * 6, head_width),
      nn.ReLU(),
      nn.Dropout(),
      nn.Linear(head_width, head_width),
      nn.ReLU(),
      nn.Linear(head_width, num_classes),
    )
    super().__init__(layers, 6, classifier, padding=2)


class BasicConv2d(nn.Module):
  """Convolution, batch normalisation with an epsilon of 0.001, ReLU."""

  def __init__(self, inputs, outputs, kernel, **options):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
    self.bn = nn.BatchNorm2d(outputs, eps=0.001)

  def forward(self, maps):
    return torch.relu(self.bn(self.conv(maps)))


class Inception(nn.Module):
  """One module. The third branch has kernels of 3, where the paper has 5."""

  def __init__(self, inputs, one, reduce3, three, reduce5, five, projection):
    super().__init__()
    self.branch1 = BasicConv2d(inputs, one, 1)
    self.branch2 = nn.Sequential(
      BasicConv2d(inputs, reduce3, 1),
      BasicConv2d(reduce3, three, 3, padding=1),
    )
    self.branch3 = nn.Sequential(
      BasicConv2d(inputs, reduce5, 1), BasicConv2d(reduce5, five, 3, padding=1)
    )
    self.branch4 = nn.Sequential(
      nn.MaxPool2d(3, 1, padding=1), BasicConv2d(inputs, projection, 1)
    )
    self.num_outputs = one + three + five + projection

  def forward(self, maps):
    branches = (self.branch1, self.branch2, self.branch3, self.branch4)
    return torch.cat([branch(maps) for branch in branches], dim=1)


class GoogLeNet(nn.Module):
  """Without auxiliary classifiers, and without a change of the inputs."""

  def __init__(self, width, num_classes):
    super().__init__()

    def scaled(channels):
      return max(1, round(width * channels))

    self.conv1 = BasicConv2d(3, scaled(64), 7, stride=2, padding=3)
    self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
    self.conv2 = BasicConv2d(scaled(64), scaled(64), 1)
    self.conv3 = BasicConv2d(scaled(64), scaled(192), 3, padding=1)
    self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
    channels = scaled(192)
    for name, widths in INCEPTIONS.items():
      module = Inception(channels, *map(scaled, widths))
      setattr(self, f"inception{name}", module)
      channels = module.num_outputs
    self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
    self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
    self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
    self.dropout = nn.Dropout(0.2)
    self.fc = nn.Linear(channels, num_classes)

  def convolved(self, images):
    features = {}
    maps = self.conv2(self.maxpool1(self.conv1(images)))
    maps = self.maxpool2(self.conv3(maps))
    for name in INCEPTIONS:
      maps = getattr(self, f"inception{name}")(maps)
      features[f"inception_{name}"] = maps
      if name == "3b":
        maps = self.maxpool3(maps)
      elif name == "4e":
        maps = self.maxpool4(maps)
    # The mean of what the window has of the map, at each place.
    features["pool5"] = functional.avg_pool2d(
      maps, 7, 1, padding=3, count_include_pad=False
    )
    features["score_fr"] = dense_as_convolution(self.fc, features["pool5"])
    return features

  def forward(self, images):
    maps = self.avgpool(self.convolved(images)["inception_5b"])
    return self.fc(self.dropout(torch.flatten(maps, 1)))


class Bottleneck(nn.Module):
  """He et al. (2016), with the stride at the 3x3 convolution."""

  def __init__(self, inputs, width, *, stride, dilation):
    super().__init__()
    outputs = 4 * width
    self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(
      width,
      width,
      3,
      stride=stride,
      padding=dilation,
      dilation=dilation,
      bias=False,
    )
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(outputs)
    self.downsample = None
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
        nn.BatchNorm2d(outputs),
      )

  def forward(self, maps):
    residual = torch.relu(self.bn1(self.conv1(maps)))
    residual = torch.relu(self.bn2(self.conv2(residual)))
    residual = self.bn3(self.conv3(residual))
    shortcut = maps if self.downsample is None else self.downsample(maps)
    return torch.relu(residual + shortcut)


class ResNet(nn.Module):
  """Of layers 3 and 4, dilated ones have a dilation in place of a stride."""

  def __init__(self, depths, widths, num_classes, *, dilated=(False, False)):
    super().__init__()
    self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(widths[0])
    self.maxpool = nn.MaxPool2d(3, 2, padding=1)
    channels, dilation = widths[0], 1
    replaced = (False, False, *dilated)
    for number in range(1, 5):
      # The first block of a dilated layer has the dilation of the one before.
      stride, first_dilation = (1 if number == 1 else 2), dilation
      if replaced[number - 1]:
        stride, dilation = 1, 2 * dilation
      blocks = []
      for i in range(depths[number - 1]):
        blocks.append(
          Bottleneck(
            channels,
            widths[number - 1],
            stride=1 if i else stride,
            dilation=dilation if i else first_dilation,
          )
        )
        channels = 4 * widths[number - 1]
      setattr(self, f"layer{number}", nn.Sequential(*blocks))
    self.num_features = channels
    if num_classes is not None:
      self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
      self.fc = nn.Linear(channels, num_classes)

  def maps(self, images):
    features = {}
    maps = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
    for number in range(1, 5):
      maps = getattr(self, f"layer{number}")(maps)
      features[f"layer{number}"] = maps
    return features

  def convolved(self, images):
    features = self.maps(images)
    features["score_fr"] = dense_as_convolution(self.fc, features["layer4"])
    return features

  def forward(self, images):
    maps = self.avgpool(self.maps(images)["layer4"])
    return self.fc(torch.flatten(maps, 1))


def fcn_head(channels, num_classes):
  width = channels // 4
  return nn.Sequential(
    nn.Conv2d(channels, width, 3, padding=1, bias=False),
    nn.BatchNorm2d(width),
    nn.ReLU(),
    nn.Dropout(0.1),
    nn.Conv2d(width, num_classes, 1),
  )


class FCN(nn.Module):
  """torchvision's fcn_resnet50 and 101, with the auxiliary head."""

  def __init__(self, depths, widths, num_classes):
    super().__init__()
    self.backbone = ResNet(depths, widths, None, dilated=(True, True))
    self.classifier = fcn_head(4 * widths[3], num_classes)
    self.aux_classifier = fcn_head(4 * widths[2], num_classes)

  def forward(self, images):
    features = self.backbone.maps(images)
    scores = {
      "out": self.classifier(features["layer4"]),
      "aux": self.aux_classifier(features["layer3"]),
    }
    return {
      name: functional.interpolate(
        values, images.shape[-2:], mode="bilinear", align_corners=False
      )
      for name, values in scores.items()
    }

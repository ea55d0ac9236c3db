"""PyTorch's DataLoader over the files of the benchmark."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

import fcn_jax as fcn
from experiments.benchmarks.input_pipeline import picture_files
from experiments.benchmarks.input_pipeline import pillow_transforms


class Endless(torch.utils.data.Sampler):
  """Indices in random order, epoch after epoch."""

  def __init__(self, length: int):
    self._length = length

  def __iter__(self) -> Iterator[int]:
    generator = np.random.default_rng(0)
    while True:
      yield from generator.permutation(self._length).tolist()


class PillowDataset(torch.utils.data.Dataset):
  """Examples with the transforms that people write for PyTorch."""

  def __init__(
    self,
    pairs: list[tuple[pathlib.Path, pathlib.Path]],
    *,
    crop_size: tuple[int, int],
    scale_range: tuple[float, float],
    jitter: dict[str, float],
  ):
    self._pairs = pairs
    self._crop = {"size": crop_size, "scale_range": scale_range}
    self._jitter = jitter

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng()
    picture, mask = self._pairs[index]
    pair = Image.open(picture).convert("RGB"), Image.open(mask)
    pair = pillow_transforms.random_scale_and_crop(
      generator, *pair, **self._crop
    )
    image, mask = pillow_transforms.random_flip(generator, *pair)
    image = pillow_transforms.color_jitter(generator, image, **self._jitter)
    return to_tensors(image, mask)


def to_tensors(
  image: Image.Image, mask: Image.Image
) -> tuple[torch.Tensor, torch.Tensor]:
  """[H, W, 3] uint8 and [H, W] int64, the type that PyTorch's loss wants."""
  return (
    torch.from_numpy(np.array(image)),
    torch.from_numpy(np.array(mask)).long(),
  )


class OursDataset(torch.utils.data.Dataset):
  """Examples with the transforms of fcn_jax."""

  def __init__(
    self,
    pairs: list[tuple[pathlib.Path, pathlib.Path]],
    *,
    crop_size: tuple[int, int],
    scale_range: tuple[float, float],
    jitter: dict[str, float],
  ):
    self._source = picture_files.Source(pairs)
    self._crop_size = crop_size
    self._scale_range = scale_range
    self._jitter = jitter

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng()
    example = self._source[index]
    image, label = fcn.data.pipeline.transforms.random_crop(
      generator,
      example.image,
      example.label,
      size=self._crop_size,
      factor=generator.uniform(*self._scale_range),
    )
    image = fcn.data.pipeline.photometric.color_jitter(
      generator, image, **self._jitter
    )
    pair = fcn.data.pipeline.transforms.random_flip(generator, image, label)
    image, label = fcn.data.pipeline.transforms.pad_to(
      *pair, size=self._crop_size
    )
    # PyTorch takes no mirrored views.
    label = np.ascontiguousarray(label, np.int64)
    return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(
      label
    )


def collate(
  examples: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> list[torch.Tensor]:
  """A batch of examples, as the DataLoader makes it in a worker."""
  return torch.utils.data.default_collate(examples)


def batches(
  dataset: torch.utils.data.Dataset, *, batch_size: int, num_workers: int
) -> Iterator[Any]:
  """Endless batches, made by as many processes."""
  loader = torch.utils.data.DataLoader(
    dataset,
    batch_size=batch_size,
    sampler=Endless(len(dataset)),
    num_workers=num_workers,
    # Not fork, since this process has threads.
    multiprocessing_context="spawn",
  )
  return iter(loader)

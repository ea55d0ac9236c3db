"""Trains a U-Net of segmentation_models.pytorch on a folder of pictures.

A short honest script: what that library leaves to its user for what `fcn-jax
train PICTURES` does at least. docs/comparison.md counts its lines and times it.
It needs segmentation_models_pytorch, which this project does not install:

    python experiments/benchmarks/smp_folder.py PICTURES 200
"""

import pathlib
import sys

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image

SIDE, NUM_CLASSES, VOID = 96, 6, 255
FOLDER, STEPS = pathlib.Path(sys.argv[1]), int(sys.argv[2])


class Pictures(torch.utils.data.Dataset):
  def __init__(self, paths):
    self.paths = paths

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, index):
    image, mask = read(self.paths[index])
    top = np.random.randint(image.shape[0] - SIDE + 1)
    left = np.random.randint(image.shape[1] - SIDE + 1)
    window = np.s_[top : top + SIDE, left : left + SIDE]
    image, mask = image[window], mask[window]
    if np.random.rand() < 0.5:
      image, mask = image[:, ::-1].copy(), mask[:, ::-1].copy()
    return as_tensor(image), torch.from_numpy(mask).long()


def read(path):
  image = np.array(Image.open(path).convert("RGB"))
  return image, np.array(Image.open(FOLDER / "masks" / path.name))


def as_tensor(image):
  return torch.from_numpy(image).permute(2, 0, 1).float() / 255


paths = sorted((FOLDER / "images").iterdir())
held_out = paths[::5]
train = Pictures([path for path in paths if path not in held_out])
model = smp.Unet("resnet18", encoder_weights=None, classes=NUM_CLASSES)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = torch.nn.CrossEntropyLoss(ignore_index=VOID)
step = 0
while step < STEPS:
  for images, masks in torch.utils.data.DataLoader(
    train, batch_size=8, shuffle=True, drop_last=True
  ):
    loss = criterion(model(images), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    print(f"step {step}, loss {loss.item():.3f}", flush=True)
    if step == STEPS:
      break

model.eval()
counts = 0
for path in held_out:
  image, mask = read(path)
  # The network takes multiples of 32 only.
  height, width = (side // 32 * 32 for side in mask.shape)
  with torch.no_grad():
    classes = model(as_tensor(image[:height, :width])[None]).argmax(1)
  counts += torch.stack(
    smp.metrics.get_stats(
      classes,
      torch.from_numpy(mask[None, :height, :width]).long(),
      mode="multiclass",
      ignore_index=VOID,
      num_classes=NUM_CLASSES,
    )
  ).sum(1)
hits, false_positives, misses, _ = counts
mean_iu = (hits / (hits + false_positives + misses)).mean()
print(f"mean IU {mean_iu:.3f}")
torch.save(model.state_dict(), "smp.pt")

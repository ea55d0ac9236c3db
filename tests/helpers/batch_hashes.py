"""A run that is to be killed: writes a line for each batch it has made.

python batch_hashes.py FILE OPTIONS_AS_JSON
"""

import hashlib
import json
import multiprocessing
import pathlib
import sys
import time

import numpy as np

from fcn_jax import data


def hashes(*, first_batch=0, **loading):
  """Yields, for each batch without end, the hashes of its examples."""
  generator = np.random.default_rng(0)
  source = []
  for index in range(11):
    size = (20 + index % 5, 30 - index % 3)
    source.append(
      data.Example(
        generator.integers(256, size=(*size, 3), dtype=np.uint8),
        generator.integers(5, size=size, dtype=np.int32),
        f"example_{index}",
      )
    )
  batches = data.train_batches(
    source,
    batch_size=4,
    augmentation=data.Augmentation(
      crop_size=(16, 16),
      scale_range=(0.5, 2.0),
      min_labelled=0.5,
      brightness=0.4,
      contrast=0.4,
      saturation=0.4,
      hue=0.1,
      blur_probability=0.5,
    ),
    seed=7,
    num_classes=5,
    first_batch=first_batch,
    loading=data.Loading(**loading),
  )
  for batch in batches:
    yield [
      hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
      for image, label in zip(batch.images, batch.labels, strict=True)
    ]


def main(path, options):
  with path.open("w", buffering=1) as file:
    for line in hashes(**options):
      if options.get("num_workers"):
        pids = [child.pid for child in multiprocessing.active_children()]
        path.with_suffix(".pids").write_text(json.dumps(pids))
      file.write(json.dumps(line) + "\n")
      time.sleep(0.02)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))

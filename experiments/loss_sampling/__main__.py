"""python -m experiments.loss_sampling"""

import sys

from experiments.loss_sampling import study

if __name__ == "__main__":
  try:
    study.main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command continues from what is saved.")

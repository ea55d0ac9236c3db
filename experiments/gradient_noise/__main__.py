"""python -m experiments.gradient_noise"""

import sys

from experiments.gradient_noise import study

if __name__ == "__main__":
  try:
    study.main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command continues from what is saved.")

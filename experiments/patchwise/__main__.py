"""python -m experiments.patchwise"""

import sys

from experiments.patchwise import study

if __name__ == "__main__":
  try:
    study.main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command continues from what is saved.")

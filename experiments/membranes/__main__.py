"""python -m experiments.membranes"""

import sys

from experiments.membranes import study

if __name__ == "__main__":
  try:
    study.main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command continues from what is saved.")

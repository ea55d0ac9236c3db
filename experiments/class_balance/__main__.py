"""python -m experiments.class_balance"""

import sys

from experiments.class_balance import study

if __name__ == "__main__":
  try:
    study.main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command continues from what is saved.")

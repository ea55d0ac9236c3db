"""`fcn-jax predict` as a script: python experiments/predict.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["predict", *sys.argv[1:]])

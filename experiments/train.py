"""`fcn-jax train` as a script: python experiments/train.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["train", *sys.argv[1:]])

"""`fcn-jax export` as a script: python experiments/export.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["export", *sys.argv[1:]])

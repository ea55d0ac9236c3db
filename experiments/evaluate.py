"""`fcn-jax evaluate` as a script: python experiments/evaluate.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["evaluate", *sys.argv[1:]])

"""`fcn-jax convert` as a script: python experiments/convert.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["convert", *sys.argv[1:]])

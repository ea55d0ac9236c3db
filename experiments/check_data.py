"""`fcn-jax check-data` as a script: python experiments/check_data.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["check-data", *sys.argv[1:]])

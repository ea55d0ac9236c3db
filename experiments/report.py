"""`fcn-jax report` as a script: python experiments/report.py --help."""

import sys

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main(["report", *sys.argv[1:]])

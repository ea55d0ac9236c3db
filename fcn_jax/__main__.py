"""`python -m fcn_jax` is the program `fcn-jax`."""

from fcn_jax.cli import main

if __name__ == "__main__":
  main.main()

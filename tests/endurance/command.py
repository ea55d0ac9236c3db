"""`fcn-jax` with a tiny network in the place of vgg_small."""

import sys

from fcn_jax import models
from fcn_jax.cli import main as cli
from tests.helpers import tiny_networks

# Workers of a run import this module, too.
if __name__ == "__main__":
  models.backbones.vgg.ARCHITECTURES["vgg_small"] = tiny_networks.TINY
  cli.main(sys.argv[1:])

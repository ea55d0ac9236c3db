"""Ways to train rare classes."""

"""The noise of the sampled gradient."""

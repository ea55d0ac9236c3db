"""Speed and memory, as ratios of things that take turns in one process."""

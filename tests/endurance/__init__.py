"""The endurance test; see `__main__`."""

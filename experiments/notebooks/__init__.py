"""Notebooks, and the command that runs them and stores their outputs."""

"""Experiments: thin scripts for the command line, and studies in folders."""

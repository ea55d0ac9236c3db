"""The command line: `fcn-jax COMMAND`, one module for each command.

Nothing else in the package imports `cli`.
"""

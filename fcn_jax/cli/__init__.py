"""The command line: `fcn-jax COMMAND`, one module a command.

Nothing in the package imports this room.
"""

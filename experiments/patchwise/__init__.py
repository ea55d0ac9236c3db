"""Patches against whole images."""

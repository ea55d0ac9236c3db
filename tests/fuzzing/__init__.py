"""Fuzzers of everything that reads files; see `docs/limits.md`."""

"""Experiments: short scripts for the commands, studies and benchmarks."""

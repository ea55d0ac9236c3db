"""The papers' patch-sampling experiment."""

"""Patchwise and fully convolutional training on electron microscopy."""

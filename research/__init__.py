"""Experiments, and the training of the finder of disc and fovea, run by hand: python -m research.NAME."""

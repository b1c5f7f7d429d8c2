"""Kinds of vessels as pixels have them."""

NONE, ARTERY, VEIN, BOTH, UNCERTAIN = 0, 1, 2, 3, 255  # uint8; BOTH at a crossing

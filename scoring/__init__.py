"""Scores of segmentations, and masks that other programs made."""

"""Scores against labels, and their tables."""

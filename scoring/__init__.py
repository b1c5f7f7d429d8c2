"""Scores, pictures and the result page."""

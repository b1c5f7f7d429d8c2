"""Measures of the vessels of one eye: calibre, skeleton, fractals; how sure they are, and doubts."""

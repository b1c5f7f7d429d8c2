"""Research scripts, run by hand: python -m research.NAME."""

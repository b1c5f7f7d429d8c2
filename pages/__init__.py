"""The result page, its pictures, and the names of result files."""

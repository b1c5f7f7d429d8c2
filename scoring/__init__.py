"""What the results are worth: metrics, pictures, the result page."""

"""From a photograph to vessel probabilities."""

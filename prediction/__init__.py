"""From a photograph to vessel probabilities: its scale, tiles and views; and which vessels are arteries."""

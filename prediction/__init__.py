"""From a photograph to vessel probabilities: checkpoints, networks, segmentation."""

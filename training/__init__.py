"""Everything that happens between train.py and a checkpoint."""

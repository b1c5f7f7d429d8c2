"""From new_data to a checkpoint: crops, loss, optimizer, loop, cross-validation."""

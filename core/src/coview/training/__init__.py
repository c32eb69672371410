"""The training engine: steps, checkpoints, resuming, observers."""

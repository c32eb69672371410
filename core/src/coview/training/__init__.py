"""The engine: steps, optimisers, schedules, checkpoints, observers."""

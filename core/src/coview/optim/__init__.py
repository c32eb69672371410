"""Optimisers, learning-rate schedules and the supervised loop."""

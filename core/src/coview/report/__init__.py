"""Pictures of runs and recipes."""

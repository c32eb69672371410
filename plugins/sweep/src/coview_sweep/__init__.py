"""Sweeps over settings: many runs, of which each is ``coview train``."""

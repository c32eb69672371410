"""Trained weights: written, opened, converted."""

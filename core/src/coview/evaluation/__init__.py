"""Evaluate trained weights: features, and the accuracies measured on them."""

"""Contrastive predictive coding's loss and negatives (van den Oord et al. 2018, arXiv:1807.03748)."""

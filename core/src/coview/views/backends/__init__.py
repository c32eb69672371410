"""Implementations of the standard augmentations: fused, kornia, torchvision."""

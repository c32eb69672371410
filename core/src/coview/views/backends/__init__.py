"""What runs the standard augmentations: fused, kornia, torchvision."""

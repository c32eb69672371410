"""The standard views in a few Triton kernels: ``views.backend = triton``."""

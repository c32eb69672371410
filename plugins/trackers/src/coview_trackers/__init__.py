"""Observers that hand a run to MLflow, and its pictures to TensorBoard and Weights & Biases."""

"""What weights are worth: features and the accuracies measured on them."""

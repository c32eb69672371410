"""Networks: encoders, backbones and heads, and their normalisation and compilation."""

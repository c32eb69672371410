"""Networks: encoders, backbones, heads, and how they are normalised and compiled."""

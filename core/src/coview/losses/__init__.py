"""Building blocks for losses: similarities, a softmax in bounded memory, assignments."""

"""What losses share: similarities, a softmax in bounded memory, assignments."""

"""One training run of one library, in a process of its own; benchmarks/rivals.py compares them."""

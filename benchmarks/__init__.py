"""What is measured: `python -m benchmarks NAME`, a question a file; raw figures in results/."""

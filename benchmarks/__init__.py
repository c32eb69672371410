"""What is measured: `python -m benchmarks NAME`, a question a file; raw figures in results/."""

import os

# What is measured is training, without the report that installed packages write after it.
os.environ["COVIEW_NO_REPORT"] = "1"

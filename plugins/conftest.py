"""One thread: tests are small, and threads of several processes get in each other's way.

And no reports of the runs that tests train: they take longer than the training.
"""

from __future__ import annotations

import os

import torch

torch.set_num_threads(1)
os.environ["COVIEW_NO_REPORT"] = "1"

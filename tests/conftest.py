"""What every test of the suite starts from."""

import random

import numpy as np
import pytest
import torch

# The tests are many small operations: more threads than two only wait for
# each other. OMP_NUM_THREADS=1 is respected, for machines that are busy.
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def _seed():
    """Start each test from the same seeds, in whatever order it runs."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

"""What every test of the suite starts from."""

import random

import numpy as np
import pytest
import torch

# The tests are many small operations. Where the cores are in use by others
# as well, a second thread made single tests a hundred times slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """Start each test from the same seeds, in whatever order it runs."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

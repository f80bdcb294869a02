"""What every test of the suite starts from."""

import os
import random

import numpy as np
import pytest
import torch

from tests.support.fuzz import register_profiles

# The tests are many small operations. Where the cores are in use by others
# as well, a second thread made single tests a hundred times slower.
torch.set_num_threads(1)

# What a tool called in this process would set cannot be taken back.
os.environ['MMTRANSXNET_KEEP_MEMORY'] = '0'

register_profiles()


@pytest.fixture(autouse=True)
def _seed():
    """Start each test from the same seeds, in whatever order it runs."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Root of a set of a few pictures; copy it to change it."""
    from tests.support.few_digits import build_few

    root = tmp_path_factory.mktemp('data') / 'digits'
    # An odd number: two processes do not share it evenly.
    return build_few(root, size=96, train_images=4, val_images=5)

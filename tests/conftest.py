"""What every test of the suite starts from."""

import dataclasses
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
    from mmtransxnet.datasets.digits import build, scans

    root = tmp_path_factory.mktemp('data') / 'digits'
    sources = scans.load_sources()
    # A tenth of the scans: with all, runs on single digits take most of the
    # time for validation. Odd numbers: two processes do not share them evenly.
    numbers = dict(train=121, val=45)
    pools = {
        split: pool[: numbers[split]] for split, pool in sources.pools.items()
    }
    few = dataclasses.replace(sources, pools=pools)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, 'load_sources', lambda: few)
        build.build_digits(
            root, size=96, train_images=4, val_images=5, renderings=1
        )
    return root

"""No two places in a run share a random state."""

import itertools
import random

import numpy as np
import pytest
import torch

from mmtransxnet.utils.random_streams import SAMPLE, STEP, seed_everything

pytestmark = pytest.mark.distribution


def drawn(*entropy):
    """What each generator yields first."""
    seed_everything(*entropy)
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_streams_and_places_differ():
    # The last seeds fill more than one word of 32 bits.
    seeds = (0, 1, 2**32, 2**32 + 1)
    small = range(3)
    places = [
        *((STEP, *p) for p in itertools.product(seeds, small, small)),
        # As many numbers: the tag alone distinguishes.
        *((SAMPLE, *p) for p in itertools.product(seeds, small, small)),
        *((SAMPLE, *p) for p in itertools.product(seeds, small, small, small)),
    ]
    for values in zip(*(drawn(*place) for place in places), strict=True):
        # A float32 of torch has 24 random bits.
        assert len(set(values)) == len(places)


def test_the_same_place_again():
    assert drawn(SAMPLE, 3, 0, 7, 1) == drawn(SAMPLE, 3, 0, 7, 1)

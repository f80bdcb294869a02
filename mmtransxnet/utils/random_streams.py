"""Random states of a training."""

import random

import numpy as np
import torch

STEP = 0
"""Stream of the random numbers of a training step."""

SAMPLE = 1
"""Stream of the random numbers in loading a sample."""


def seed_everything(stream: int, seed: int, *place: int) -> None:
    """Seed all random number generators from a sequence of integers.

    Args:
        stream: One of the constants above. States of different streams always
            differ.
        seed: Seed of the run.
        *place: Position in the run; always the same number of integers in a
            stream.
    """
    # The spawn key is separate, because integers in one sequence may be merged
    # and trailing zeros are ignored.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *place))
    state = sequence.generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    seed = int(state[2]) << 32 | int(state[3])
    # Not torch.manual_seed, which in worker processes queues calls for a GPU
    # that they never use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)

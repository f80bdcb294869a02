"""Random states of a training."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

STEP = 0
"""Stream of the random numbers of a training step."""

SAMPLE = 1
"""Stream of the random numbers in loading a sample."""


def random_states() -> dict[str, Any]:
    """States of Python, numpy, torch and this process's GPU."""
    states = dict(
        python=random.getstate(),
        numpy=np.random.get_state(legacy=False),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore states that :func:`random_states` returned.

    The state of a GPU is ignored if there is no GPU.
    """
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'])


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

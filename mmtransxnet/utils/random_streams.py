"""The states of all random numbers that a training draws."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

STEP = 0
"""Stream of what a training step draws."""

SAMPLE = 1
"""Stream of what the loading of a sample draws."""


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
    """Go back to the states that :func:`random_states` returned.

    A GPU's is left out where there is no GPU.
    """
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'])


def seed_everything(stream: int, seed: int, *place: int) -> None:
    """Start all random number generators from a state for these numbers.

    Args:
        stream: What draws from them, one of the constants above. States of
            different streams differ, whatever the other numbers.
        seed: Seed of the run.
        *place: Where the run is, always as many numbers in a stream.
    """
    # A key of its own: numbers in one sequence may run into each other, and
    # zeros at its end do not count.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *place))
    state = sequence.generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    seed = int(state[2]) << 32 | int(state[3])
    # Not torch.manual_seed, which in worker processes collects calls for a
    # GPU that they never use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)

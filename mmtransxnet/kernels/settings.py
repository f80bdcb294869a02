"""How the network is computed on a device, as data.

A kind of device gets ways of its own only after they were measured on it.
All others compute with PyTorch's own operators.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """What differs between devices; the results are equal.

    Attributes:
        block_scores: Attention scores that a block of queries has at most,
            for each of PyTorch's threads.
        whole_table: Size in bytes up to which the resized position table of
            a stage is made once and kept (None: any); above, attention makes
            the rows that a block of queries needs.
        trains_with_mask: Whether PyTorch's fused attention has a gradient
            for its mask. Where it has none, it would keep all scores.
        exact_mask: Whether fused attention takes a mask of higher precision
            than the queries; otherwise the table is rounded to theirs.
        fast_depthwise: Whether the ways around the slow depthwise
            convolutions of CPU libraries are taken.
        recompute_above: Number of values of a map above which
            ``recompute='auto'`` keeps less for the backward pass; None for
            never.
    """

    block_scores: int = 2**24
    whole_table: int | None = 2**28
    trains_with_mask: bool = True
    exact_mask: bool = False
    fast_depthwise: bool = False
    recompute_above: int | None = None


UNMEASURED = Settings()
"""For devices on which nothing was measured."""

PLAIN = Settings(whole_table=None)
"""The formula and nothing else: no operator of ours, whatever the size."""

BY_DEVICE = {
    # Half a MiB of scores stays in the second level cache with what is
    # computed from them. Recomputation costs 4 % of the time of a step with
    # maps of 5 million values, 15 % with the maps of a few small images,
    # where memory is no concern (docs/performance.md).
    'cpu': Settings(
        block_scores=2**17,
        whole_table=0,
        trains_with_mask=False,
        exact_mask=True,
        fast_depthwise=True,
        recompute_above=5_000_000,
    ),
}
"""Settings by type of device; :data:`UNMEASURED` for all others."""

_plain = False


def settings_of(x: Tensor) -> Settings:
    """The settings by which to compute with a tensor."""
    if _plain or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return PLAIN
    return BY_DEVICE.get(x.device.type, UNMEASURED)


@contextmanager
def plain() -> Iterator[None]:
    """Compute by the formula alone, in this process.

    Exporters and tracers get it without asking. For reading a network with
    a debugger, for comparisons, and for second derivatives, which need
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` as well.
    """
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@contextmanager
def settings_for(device: str, settings: Settings) -> Iterator[None]:
    """Compute on a type of device as on another, in this process.

    For tests, and for whoever measures a device.

    Args:
        device: ``'cpu'``, ``'cuda'``, ...
        settings: What to compute by.
    """
    before = dict(BY_DEVICE)
    BY_DEVICE[device] = settings
    try:
        yield
    finally:
        BY_DEVICE.clear()
        BY_DEVICE.update(before)

"""How the network is computed on a device, as data.

A type of device gets settings of its own only after they were measured on it.
All others use what PyTorch has for them, and attention in blocks for very
large tables.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """Device-dependent settings; they do not change the results.

    Attributes:
        block_scores: Maximum number of values (scores, their bias, ...) that
            attention has in memory for a block of queries, per PyTorch thread.
        whole_table: Size in bytes up to which the resized position table of a
            stage is computed once and kept (None: any size); above, attention
            computes the rows that a block of queries needs.
        resize_by_rows: Whether to resize position tables by matrix products
            and sums of rows, because the library's resize uses one thread.
        trains_with_mask: Whether PyTorch's fused attention has a gradient
            for its mask. Where it has none, it would keep all scores.
        exact_mask: Whether fused attention takes a mask of higher precision
            than the queries; otherwise the table is rounded to theirs.
        aligned_attention: Whether fused attention takes only heads and rows
            of the mask that are aligned. Heads that are not would compute the
            formula and keep all scores; rows would be copied in every block.
        channels_last: Whether maps lie in memory with their channels last.
        fast_depthwise: Whether to avoid the slow depthwise convolutions of CPU
            libraries.
        fused_convolution: Whether oneDNN computes convolutions of the
            inference form together with what follows them.
        fused_scale: Whether LayerScale is one operator instead of a product
            and a sum.
        recompute_above: Number of values of a map above which
            ``recompute='auto'`` recomputes in the backward pass; None for
            never.
    """

    block_scores: int = 2**24
    whole_table: int | None = 2**30
    resize_by_rows: bool = False
    trains_with_mask: bool = True
    exact_mask: bool = False
    aligned_attention: bool = True
    channels_last: bool = False
    fast_depthwise: bool = False
    fused_convolution: bool = False
    fused_scale: bool = True
    recompute_above: int | None = None


UNMEASURED = Settings()
"""For devices that were not measured."""

PLAIN = Settings(whole_table=None, aligned_attention=False, fused_scale=False)
"""The formula only: no custom operator, whatever the size."""

BY_DEVICE = {
    # 2 MiB per thread are enough work for a call and stay in the cache.
    # Recomputation is faster than new memory where maps are large; with maps
    # of a few million values and fewer, it takes the same time
    # (docs/performance.md).
    'cpu': Settings(
        block_scores=2**19,
        whole_table=2**26,
        resize_by_rows=True,
        trains_with_mask=False,
        exact_mask=True,
        aligned_attention=False,
        channels_last=True,
        fast_depthwise=True,
        fused_convolution=True,
        fused_scale=False,
        recompute_above=2_000_000,
    ),
}
"""Settings by type of device; :data:`UNMEASURED` for all others."""

_plain = False

# Before 2.7, torch does not tell export from compilation: both compute the
# formula there.
_is_exporting = getattr(
    torch.compiler, 'is_exporting', torch.compiler.is_compiling
)


def settings_of(x: Tensor) -> Settings:
    """The settings for computing with a tensor."""
    if _plain or _is_exporting() or torch.jit.is_tracing():
        return PLAIN
    return BY_DEVICE.get(x.device.type, UNMEASURED)


@contextmanager
def plain() -> Iterator[None]:
    """Compute with the formula only, in this process.

    Always active in export and tracing. Use it for debugging, for comparisons,
    and for second derivatives, which need
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
    """Replace the settings of a type of device, in this process.

    For tests and for measuring devices.

    Args:
        device: ``'cpu'``, ``'cuda'``, ...
        settings: The settings to use.
    """
    before = dict(BY_DEVICE)
    BY_DEVICE[device] = settings
    try:
        yield
    finally:
        BY_DEVICE.clear()
        BY_DEVICE.update(before)


def computed_type(x: Tensor) -> torch.dtype:
    """Type in which autocast has convolutions and products of ``x`` computed.

    That of ``x`` itself where autocast is off; autocast leaves double as it
    is.
    """
    device = x.device.type
    if (
        x.dtype != torch.float64
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    ):
        return torch.get_autocast_dtype(device)
    return x.dtype


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """Disable autocast: compute in the tensors' own types."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)

"""Pooling and resizing to sizes that are known in the graph only.

They are products with small matrices, computed from the sizes. Positions are
integers, so that an engine that computes in bfloat16 does not round them.
"""

import torch
from torch import Tensor

# Coefficient of torch's bicubic interpolation.
_A = -0.75


def bin_averages(length: int, bins: int, like: Tensor) -> Tensor:
    """The matrix of an adaptive average pooling along an axis.

    Args:
        length: Number of positions N.
        bins: Number of averages n, as of ``F.adaptive_avg_pool2d``.
        like: A tensor of the type of the result.

    Returns:
        Matrix ``(n, N)``.
    """
    bin_ = torch.arange(bins, device=like.device)[:, None]
    start = bin_ * length // bins
    # Rounded up; all numbers are positive.
    stop = ((bin_ + 1) * length + bins - 1) // bins
    position = torch.arange(length, device=like.device)
    inside = (position >= start) & (position < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


def bicubic_taps(
    num_in: int, num_out: int, like: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The four inputs of each output of a bicubic resize along an axis.

    As ``F.interpolate(mode='bicubic', align_corners=False)`` has them.

    Args:
        num_in: Number of inputs.
        num_out: Number of outputs.
        like: A tensor of the type of the weights.

    Returns:
        Four tensors of indices ``(num_out,)``, and four of weights.
    """
    out = torch.arange(num_out, device=like.device)
    # (out + 0.5) num_in / num_out - 0.5, its floor and its fraction.
    doubled = (2 * out + 1) * num_in - num_out
    # Shifted by one input: a floor of positive numbers is a division.
    centre = (doubled + 2 * num_out) // (2 * num_out) - 1
    rest = doubled - centre * 2 * num_out
    t = rest.to(like.dtype) / (2 * num_out)
    weights = [_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t)]
    rows = [(centre + i).clamp(0, num_in - 1) for i in (-1, 0, 1, 2)]
    return rows, weights


def _inner(x: Tensor) -> Tensor:
    """Weight at a distance x up to 1."""
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    """Weight at a distance x from 1 to 2."""
    return ((x - 5) * x + 8) * x * _A - 4 * _A


def resize_rows(table: Tensor, num_out: int) -> Tensor:
    """Resize ``(heads, rows, columns)`` to another number of rows."""
    rows, weights = bicubic_taps(table.size(1), num_out, table)
    parts = [
        table.index_select(1, row) * weight[:, None]
        for row, weight in zip(rows, weights, strict=True)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


def resize_table(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a position table, as the published network does.

    The columns first: they are few, so nearly all work is that of the rows.

    Args:
        table: Table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, Nq, Nk)``.
    """
    columns = resize_rows(table[0].mT, num_k)
    return resize_rows(columns.mT, num_q)[None]

"""Pooling and resizing to sizes that are known in the graph only.

They are products with small matrices, computed from the sizes. Positions are
integers, so that an engine that computes in bfloat16 does not round them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Inputs on either side that an output at the border reaches beyond it.
_BORDER = 2


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


def bicubic_weights(
    output: Tensor, input_: Tensor, num_in: int, num_out: int, like: Tensor
) -> Tensor:
    """Weights of a bicubic resize along an axis.

    As ``F.interpolate(mode='bicubic', align_corners=False)`` has them. Beyond
    the border, it repeats the input there.

    Args:
        output: Indices of outputs.
        input_: Indices of inputs, from -2 to ``num_in + 1``.
        num_in: Number of inputs.
        num_out: Number of outputs.
        like: A tensor of the type of the weights.

    Returns:
        Weights of the broadcast shape of the indices; zeros for inputs that an
        output does not depend on.
    """
    # (output + 0.5) num_in / num_out - 0.5 - input.
    doubled = (2 * output + 1) * num_in - (2 * input_ + 1) * num_out
    distance = doubled.to(like.dtype).abs() / (2 * num_out)
    # torch's two cubics, of distances up to 1 and up to 2, as one: the second
    # is 0.75 (a - 1) a^2, the first has -2 (a - 1)^3 in addition.
    a = (2 - distance).relu()
    b = a - 1
    c = b.relu()
    return 0.75 * b * a * a - 2 * c * c * c


def with_border(table: Tensor) -> Tensor:
    """Repeat the first and the last column of a table.

    Args:
        table: Table ``(heads, rows, columns)``.

    Returns:
        Table ``(heads, rows, columns + 4)``, for :func:`resize_table`.
    """
    return F.pad(table, (_BORDER, _BORDER), mode='replicate')


def resize_columns(table: Tensor, num_out: int) -> Tensor:
    """Resize ``(heads, rows, columns + 4)`` to ``(heads, rows, num_out)``."""
    num_in = table.size(2) - 2 * _BORDER
    output = torch.arange(num_out, device=table.device)
    input_ = torch.arange(-_BORDER, num_in + _BORDER, device=table.device)
    weights = bicubic_weights(
        output, input_[:, None], num_in, num_out, like=table
    )
    return table @ weights


def resize_rows(table: Tensor, height: int, width: int) -> Tensor:
    """Resize the rows, which are the positions of a map.

    The positions of one row of the map depend on few rows of the table, next
    to each other: a small product for each row of the map.

    Args:
        table: Table ``(heads, rows, columns)``.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        Table ``(heads, height * width, columns)``.
    """
    heads, num_in, columns = table.shape
    num_out = height * width
    start = torch.arange(height, device=table.device)[:, None] * width
    # The first row that the first position depends on: the floor of its
    # place in the table less 1, which is at least -2.
    first = ((2 * start + 1) * num_in + num_out) // (2 * num_out) - 2
    # From there to that of the last position, and its four rows.
    window = (width - 1) * num_in // num_out + 5
    used = first + torch.arange(window, device=table.device)
    output = start + torch.arange(width, device=table.device)
    weights = bicubic_weights(
        output[..., None], used[:, None], num_in, num_out, like=table
    )
    rows = table.index_select(1, used.clamp(0, num_in - 1).flatten())
    rows = rows.reshape(heads, height, window, columns)
    return (weights @ rows).reshape(heads, num_out, columns)


def resize_table(table: Tensor, height: int, width: int, num_k: int) -> Tensor:
    """Resize a position table, as the published network does.

    The columns first: they are few, so nearly all work is that of the rows.

    Args:
        table: Table ``(heads, Nq0, Nk0 + 4)``, see :func:`with_border`.
        height: Rows of the map of the queries H.
        width: Its columns W.
        num_k: Number of keys Nk.

    Returns:
        Table ``(heads, H W, Nk)``.
    """
    return resize_rows(resize_columns(table, num_k), height, width)

"""Overlapping windows that cover a large picture."""

import math

from mmtransxnet.utils.errors import UserError


def windows(
    height: int, width: int, size: int, overlap: float = 0.2
) -> list[tuple[int, int, int, int]]:
    """Return windows that cover a picture.

    All have the same size, except along a side shorter than ``size``, which
    one window covers. The last window of a row or column ends at the edge of
    the picture, so its overlap can be larger than asked for.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        size: Side of a window, in pixels.
        overlap: Least share of a window's side that it has in common with the
            next, from 0 to below 1.

    Returns:
        Left, top, width and height of each, row by row.

    Raises:
        UserError: A size is not positive, or the overlap is out of range.
    """
    if min(height, width) < 1:
        raise UserError(
            f'a picture of {width} x {height} pixels has no windows: give one '
            'with pixels'
        )
    if size < 1:
        raise UserError(
            f'windows of {size} pixels are too small: give at least 1'
        )
    if not 0 <= overlap < 1:
        raise UserError(
            f'an overlap of {overlap} is out of range: give a share from 0 to '
            'below 1, such as 0.2'
        )
    return [
        (left, top, min(size, width), min(size, height))
        for top in _starts(height, size, overlap)
        for left in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where windows along a side start."""
    last = max(0, length - size)
    step = max(1, math.floor(size * (1 - overlap)))
    return [*range(0, last, step), last]

"""A bicubic resize of the rows of a matrix, row by row.

Each row of the result is a weighted sum of four rows, so any rows can be
computed separately, and so can their gradient.
"""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Number of input rows that an output row depends on.
_TAPS = 4

# Labels that repeat every eight rows distinguish the rows around the four even
# where rounding shifts the centre by one.
_PERIOD = 8

_CACHE_BYTES = 32 * 2**20
"""Maximum size of all cached taps, in bytes."""


@dataclass(frozen=True)
class Taps:
    """The sparse matrix A of a resize of rows: ``(A T)[i] = sum_t w T[r]``.

    Attributes:
        weights: Weights w ``(Nq, 4)``.
        rows: Rows r of the table ``(Nq, 4)``.
        num_rows: Number of rows Nq0 of the table.
    """

    weights: Tensor
    rows: Tensor
    num_rows: int

    def bias(self, table: Tensor, queries: slice) -> Tensor:
        """Rows ``(heads, queries, Nk)`` of the resized table.

        Args:
            table: Table ``(heads, Nq0, Nk)``.
            queries: Range of its rows.
        """
        heads, _, num_k = table.shape
        rows = self._indices_of_heads(self.rows[queries], heads, self.num_rows)
        weights = self.weights[queries].repeat(heads, 1)
        # PyTorch calls a sum of weighted rows an embedding bag.
        bags = F.embedding_bag(
            rows.view(-1, _TAPS),
            table.reshape(-1, num_k),
            per_sample_weights=weights,
            mode='sum',
        )
        return bags.view(heads, -1, num_k)

    def window(self, queries: slice) -> tuple[slice, Tensor]:
        """The part of the matrix A that computes a range of its rows.

        The range of the table's rows follows from the formula of the resize,
        without a device synchronisation.

        Args:
            queries: Range of queries.

        Returns:
            The rows of the table that have weights other than zero, and the
            weights, ``(queries, rows)``.
        """
        first, last = (
            ((2 * i + 1) * self.num_rows - self.weights.size(0))
            // (2 * self.weights.size(0))
            for i in (queries.start, queries.stop - 1)
        )
        # One row before and two after the centre, and one for rounding.
        source = slice(max(0, first - 2), min(self.num_rows, last + 4))
        count = source.stop - source.start
        # Weights that are zero may have any row.
        rows = (self.rows[queries] - source.start).clamp(0, count - 1)
        window = self.weights.new_zeros(rows.size(0), count)
        return source, window.scatter_add_(1, rows, self.weights[queries])

    @staticmethod
    def _indices_of_heads(numbers: Tensor, heads: int, step: int) -> Tensor:
        """Indices of the same rows in all heads, one head after another."""
        head = torch.arange(heads, device=numbers.device) * step
        return head.view(-1, *[1] * numbers.dim()) + numbers


class TapsCache:
    """A cache of taps, least recently used sizes dropped first.

    An image of 800 x 1216 pixels needs 4 MB of taps over all stages.
    """

    def __init__(self) -> None:
        self._taps: OrderedDict[Any, Taps] = OrderedDict()
        # The backward pass runs in a separate thread for each device.
        self._lock = threading.Lock()

    def get(self, num_in: int, num_out: int, like: Tensor) -> Taps:
        """Taps of a resize from ``num_in`` to ``num_out`` rows."""
        # Tensors of a tracer or of a fake mode have no values to cache.
        if type(like) is not Tensor or like.device.type == 'meta':
            return make_taps(num_in, num_out, like)
        key = num_in, num_out, like.device, like.dtype
        with self._lock:
            taps = self._taps.pop(key, None)
            if taps is None:
                taps = make_taps(num_in, num_out, like)
            self._taps[key] = taps
            while self.nbytes() > _CACHE_BYTES:
                self._taps.popitem(last=False)
        return taps

    def nbytes(self) -> int:
        """Size of the cached taps, in bytes."""
        return sum(
            taps.weights.nbytes + taps.rows.nbytes
            for taps in self._taps.values()
        )


taps_cache = TapsCache()


@torch.inference_mode(mode=False)
def make_taps(num_in: int, num_out: int, like: Tensor) -> Taps:
    """Compute the taps of a bicubic resize of rows, on a tensor's device.

    They are obtained from ``F.interpolate`` on an image with labelled rows, so
    its device-dependent rounding and its treatment of borders are reproduced.
    """
    device = like.device
    labels = torch.eye(_PERIOD, device=device, dtype=like.dtype)
    labels = labels.repeat(math.ceil(num_in / _PERIOD), 1)[:num_in]
    weights = F.interpolate(
        labels[None, None], size=(num_out, _PERIOD), mode='bicubic'
    )[0, 0]
    # The largest values are the taps; the others are zero.
    label = weights.abs().topk(_TAPS).indices
    query = torch.arange(num_out, device=device)[:, None]
    centre = ((2 * query + 1) * num_in - num_out) // (2 * num_out)
    first = centre - _PERIOD // 2 + 1
    rows = first + (label - first) % _PERIOD
    # Beyond the borders, labels belong to zero weights only.
    return Taps(weights.gather(1, label), rows.clamp(0, num_in - 1), num_in)

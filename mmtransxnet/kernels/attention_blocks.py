"""Attention and its gradients, one block of queries at a time.

Memory that is requested and freed in every block would be returned to the
system and cleared again for the next: half of the time of a block. So the
gradients are computed in buffers that all blocks share.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransxnet.kernels.bicubic import Taps, taps_cache
from mmtransxnet.kernels.settings import settings_of, without_autocast

_MIN_ROWS = 64

# Multiples of it are an equal amount of work for all threads of PyTorch's
# fused attention.
_ROWS = 256

# Rows of a resized table that a block needs: each makes the products of its
# queries and keys larger.
_TABLE_ROWS = 16

# What fused attention needs on GPUs (PyTorch's minimum_gemm_alignment): bytes
# of a head's values.
_HEAD_BYTES = 16


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Type to compute in: sums over keys need at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's fused attention.

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        bias: Position bias ``(1, heads, Nq, Nk)``. Under autocast q, k, v have
            low precision, the bias that of a parameter.

    Returns:
        Tensor ``(B, heads, Nq, D)``.
    """
    if settings_of(q).exact_mask and bias.dtype == torch.float32:
        # Autocast would round the mask, in a pass of its own in each layer.
        with without_autocast(q):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    bias = bias.to(q.dtype)
    dim, missing = q.size(-1), missing_values(q)
    if not missing:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    q, k, v = (F.pad(t, (0, missing)) for t in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, scale=dim**-0.5
    )
    return out[..., :dim]


def missing_values(q: Tensor) -> int:
    """Zeros to append to the values of a head to align them."""
    if not settings_of(q).aligned_attention:
        return 0
    return -q.size(-1) % (_HEAD_BYTES // q.element_size())


def attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Attention in blocks; see :func:`.attention.attention`.

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        table: Position bias ``(heads, Nq0, Nk)``.

    Returns:
        Tensor ``(B, heads, Nq, D)``, contiguous over the heads of a token.
    """
    out = empty_output(q)
    table = table.to(compute_dtype(table))
    for queries in _blocks(q, table.size(0) * table.size(2)):
        bias = rows_of_bias(table, q.size(2), queries)
        out[:, :, queries] = fused_attention(
            q[:, :, queries], k, v, bias[None]
        )
    return out


def empty_output(q: Tensor) -> Tensor:
    """``(B, heads, Nq, D)``, contiguous over the heads of a token."""
    b, heads, num_q, dim = q.shape
    return q.new_empty(b, num_q, heads, dim).transpose(1, 2)


def rows_of_bias(table: Tensor, num_q: int, queries: slice) -> Tensor:
    """Bias ``(heads, queries, Nk)`` of some of the queries.

    Args:
        table: Table ``(heads, Nq0, Nk)``, resized to ``num_q`` rows.
        num_q: Number of all queries.
        queries: The queries wanted.
    """
    if table.size(1) == num_q:
        return table[:, queries]
    return taps_cache.get(table.size(1), num_q, table).bias(table, queries)


def resize_by_rows(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a position table in two steps, keys first, by all threads.

    ``F.interpolate``'s bicubic resize uses a single thread. Where gradients
    are enabled, it resizes the rows: only few are wanted then.

    Args:
        table: Table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, Nq, Nk)``.
    """
    resized = table.to(compute_dtype(table))
    if num_k != table.size(3):
        taps = taps_cache.get(table.size(3), num_k, resized.detach())
        columns, weights = taps.window(slice(0, num_k))
        with without_autocast(table):
            resized = resized[..., columns] @ weights.mT
    if num_q != table.size(2) and torch.is_grad_enabled():
        size = num_q, num_k
        resized = F.interpolate(resized, size, mode='bicubic')
    elif num_q != table.size(2):
        rows = resized.detach()[0]
        resized = rows.new_empty(1, rows.size(0), num_q, num_k)
        for block in _blocks(resized, rows.size(0) * num_k):
            resized[0, :, block] = rows_of_bias(rows, num_q, block)
    return resized.to(table.dtype)


def _blocks(
    q: Tensor, values_per_query: int, most_rows: float = math.inf
) -> Iterator[slice]:
    """Blocks of queries, sized by the device's settings.

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        values_per_query: Number of values in memory for each query.
        most_rows: Most queries of a block, if that is more than a few.
    """
    size = settings_of(q).block_scores
    if q.device.type == 'cpu':
        size *= torch.get_num_threads()
    rows = int(min(size // max(values_per_query, 1), most_rows))
    rows = max(_MIN_ROWS, rows)
    if rows > _ROWS:
        rows -= rows % _ROWS
    for start in range(0, q.size(2), rows):
        yield slice(start, min(start + rows, q.size(2)))


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table, from recomputed scores.

    Args:
        grad: Gradient of the output ``(B, heads, Nq, D)``.
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        table: Position bias ``(heads, Nq0, Nk)``.

    Returns:
        Contiguous tensors of the sizes and types of q, k, v and the table.
    """
    dtype = compute_dtype(q)
    # Samples and heads are one batch dimension of matrix products.
    queries, keys, values, upstream = (
        t.to(dtype).flatten(0, 1) for t in (q, k, v, grad)
    )
    keys = keys * q.size(-1) ** -0.5
    d_queries = queries.new_empty(queries.shape)
    d_values = values.new_zeros(values.shape)
    biased = _biased(keys, table.to(dtype), q)
    buffers = [q.new_empty(0, dtype=dtype) for _ in range(3)]
    values_per_query = len(buffers) * queries.size(0) * keys.size(1)
    for block in _blocks(q, values_per_query, biased.most_rows):
        up = upstream[:, block]
        size = (len(up), up.size(1), keys.size(1))
        scores, weights, d_weights = (b.resize_(size) for b in buffers)
        biased.scores(queries[:, block], block, out=scores)
        torch.softmax(scores, -1, out=weights)
        d_values.baddbmm_(weights.mT, up)
        torch.bmm(up, values.mT, out=d_weights)
        d_scores = torch.ops.aten._softmax_backward_data.out(
            d_weights, weights, -1, dtype, grad_input=scores
        )
        d_queries[:, block] = d_scores @ keys
        biased.add_gradients(d_scores, queries[:, block], block)
    d_keys = biased.d_keys * q.size(-1) ** -0.5
    return (
        d_queries.view_as(q).to(q.dtype),
        d_keys.view_as(k).to(k.dtype),
        d_values.view_as(v).to(v.dtype),
        biased.d_table.to(table.dtype),
    )


def _biased(keys: Tensor, table: Tensor, q: Tensor) -> '_BiasedKeys':
    if table.size(1) == q.size(2):
        return _BiasedKeys(keys, table)
    taps = taps_cache.get(table.size(1), q.size(2), table)
    return _ExtendedKeys(keys, table, taps)


class _BiasedKeys:
    """Keys and a position table, their scores and their gradients.

    Args:
        keys: Scaled keys ``(B heads, Nk, D)``.
        table: Table ``(heads, Nq, Nk)``.

    Attributes:
        most_rows: Most queries in a block.
        d_keys: Gradient of the keys.
        d_table: Gradient of the table.
    """

    most_rows = math.inf

    def __init__(self, keys: Tensor, table: Tensor) -> None:
        self.keys = keys
        self.table = table
        # Not zeros_like: always contiguous, as the registered fake
        # implementation returns them.
        self.d_keys = keys.new_zeros(keys.shape)
        self.d_table = table.new_zeros(table.shape)

    def scores(self, queries: Tensor, block: slice, out: Tensor) -> None:
        """Compute the scores ``(B heads, queries, Nk)`` of a block.

        Args:
            queries: Queries of the block ``(B heads, queries, D)``.
            block: Which queries they are.
            out: The result.
        """
        torch.bmm(queries, self.keys.mT, out=out)
        self._of_heads(out).add_(self.table[:, block])

    def add_gradients(
        self, d_scores: Tensor, queries: Tensor, block: slice
    ) -> None:
        """Add the gradients of keys and table, after :meth:`scores`.

        Args:
            d_scores: Gradient of the scores ``(B heads, queries, Nk)``.
            queries: Queries of the block ``(B heads, queries, D)``.
            block: Which queries they are.
        """
        self.d_keys.baddbmm_(d_scores.mT, queries)
        self.d_table[:, block] += self._of_heads(d_scores).sum(dim=0)

    def _of_heads(self, x: Tensor) -> Tensor:
        """``(B heads, ...)`` to ``(B, heads, ...)``."""
        heads = self.table.size(0)
        return x.unflatten(0, (x.size(0) // heads, heads))


class _ExtendedKeys(_BiasedKeys):
    """Keys and a table that is resized to the number of queries.

    Each query is extended by the weights of the few rows of the table that
    its block needs, each key by these rows. The product of both is the score
    with its bias, and the product of the gradients has those of keys and rows.

    Args:
        keys: Scaled keys ``(B heads, Nk, D)``.
        table: Table ``(heads, Nq0, Nk)``.
        taps: The resize.
    """

    def __init__(self, keys: Tensor, table: Tensor, taps: Taps) -> None:
        super().__init__(keys, table)
        self.taps = taps
        self.most_rows = _TABLE_ROWS * len(taps.weights) / taps.num_rows
        self.dim = keys.size(2)
        self.extended_keys = keys.mT.contiguous()  # and rows, (BH, D + w, Nk)
        self.extended = keys.new_empty(0)  # queries, (BH, queries, D + w)
        self.rows = slice(0, 0)

    def scores(self, queries: Tensor, block: slice, out: Tensor) -> None:
        """See :class:`_BiasedKeys`."""
        self.rows, weights = self.taps.window(block)
        num_k = self.table.size(2)
        total = self.dim + weights.size(1)
        if total > self.extended_keys.size(1):
            new = self.keys.new_empty(self.keys.size(0), total, num_k)
            new[:, : self.dim] = self.extended_keys[:, : self.dim]
            self.extended_keys = new
        keys = self.extended_keys[:, :total]
        self._of_heads(keys[:, self.dim :]).copy_(self.table[:, self.rows])
        weights = weights.expand(queries.size(0), -1, -1)
        self.extended = torch.cat((queries, weights), dim=2)
        torch.bmm(self.extended, keys, out=out)

    def add_gradients(
        self, d_scores: Tensor, queries: Tensor, block: slice
    ) -> None:
        """See :class:`_BiasedKeys`."""
        d_extended = torch.bmm(d_scores.mT, self.extended)
        self.d_keys += d_extended[..., : self.dim]
        d_rows = self._of_heads(d_extended[..., self.dim :]).sum(dim=0)
        self.d_table[:, self.rows] += d_rows.mT

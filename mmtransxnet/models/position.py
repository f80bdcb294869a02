"""The relative position table of a stage and the attention that adds it.

The published network treats the **flattened** ``(Nq, Nk)`` table as an image
and resizes that (bicubic, ``align_corners=False``) to inputs of other sizes,
although its rows and columns are grids themselves. Odd as that is, the
published dense-prediction results were trained and measured with it.

Such a resize is separable: ``A T B^T``, with four non-zeros in each row of
the sparse matrices A ``(Nq, Nq0)`` and B ``(Nk, Nk0)``. So a table for a large
map never has to exist. ``T B^T`` is made once per stage; consecutive queries
need a few consecutive rows of it, and attention works on one block of queries
at a time, forward and backward.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Attention scores of one block, per CPU thread: half a MiB, which the second
# level cache holds with what is computed from them. A GPU wants few launches.
_CPU_BLOCK = 2**17
_GPU_BLOCK = 2**26
_MIN_ROWS = 64

# Bicubic taps lie within four rows. Labels that repeat after eight tell apart
# the rows around them even where rounding shifts the centre by one.
_PERIOD = 8


def resize_position_table(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a relative position table to another number of tokens.

    Args:
        table: Position table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, Nq, Nk)``; the input itself where it fits.
    """
    if tuple(table.shape[-2:]) == (num_q, num_k):
        return table
    return F.interpolate(
        table, size=(num_q, num_k), mode='bicubic', align_corners=False
    )


def resize_as_far_as_small(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a table, but leave rows for more queries to :func:`attention`.

    Args:
        table: Position table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, min(Nq0, Nq), Nk)``.
    """
    # Programs for other engines contain no operator of ours.
    if not torch.compiler.is_exporting():
        num_q = min(num_q, table.size(-2))
    return resize_position_table(table, num_q, num_k)


def attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Attention with a relative position bias, paper equation of OSRA.

    ``softmax(q k^T / sqrt(D) + table) v``, the table resized to Nq rows as
    :func:`torch.nn.functional.interpolate` does (bicubic).

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        table: Position bias ``(1, heads, Nq0, Nk)``.

    Returns:
        Tensor ``(B, heads, Nq, D)``.
    """
    # PyTorch's fused attention wants the values of a token side by side.
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    if torch.compiler.is_exporting():
        return _plain(q, k, v, table)
    if q.size(-2) == table.size(-2) and not _trains(q, k, v, table):
        # A parameter as mask would make PyTorch keep all scores.
        return _plain(q, k, v, table.detach())
    return torch.ops.mmtransxnet.position_attention(q, k, v, table[0])


def _trains(*tensors: Tensor) -> bool:
    """Whether gradients will be asked for."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    # Under autocast q, k, v come in low precision, the table as a parameter.
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class _Rows(NamedTuple):
    """A block of queries and the resize of the table to it.

    Attributes:
        queries: Which queries.
        source: Which rows of the table their bias is made of.
        taps: Weights ``(queries, source)``; None where they are the same.
    """

    queries: slice
    source: slice
    taps: Tensor | None

    def bias(self, table: Tensor) -> Tensor:
        """Bias ``(heads, queries, Nk)`` of this block."""
        rows = table[:, self.source].to(_compute_dtype(table))
        return rows if self.taps is None else self.taps @ rows

    def add_gradient(self, total: Tensor, gradient: Tensor) -> None:
        """Add the gradient of the bias to that of the table."""
        if self.taps is not None:
            gradient = self.taps.T @ gradient
        total[:, self.source] += gradient


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    """Low precision is for storage; sums over keys need float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _blocks(q: Tensor, table: Tensor) -> Iterator[_Rows]:
    """Blocks of queries whose scores fit into the cache."""
    size = _GPU_BLOCK
    if q.device.type == 'cpu':
        size = _CPU_BLOCK * torch.get_num_threads()
    per_query = q.size(0) * q.size(1) * table.size(2)
    rows = max(_MIN_ROWS, size // per_query)
    num_q, num_rows = q.size(2), table.size(1)
    if num_q == num_rows:
        for start in range(0, num_q, rows):
            same = slice(start, start + rows)
            yield _Rows(same, same, None)
    else:
        yield from _resizing_blocks(
            num_rows, num_q, rows, q.device, _compute_dtype(table)
        )


# A few megabytes for a map of 800 x 1216 pixels.
@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def _resizing_blocks(
    num_in: int,
    num_out: int,
    rows: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[_Rows]:
    """Cut a bicubic resize of rows into blocks.

    The taps are what ``F.interpolate`` answers for an image whose rows are
    labelled, so its rounding, which is different on each device, and its
    treatment of the borders are ours too.
    """
    labels = torch.eye(_PERIOD, device=device, dtype=dtype)
    labels = labels.repeat(math.ceil(num_in / _PERIOD), 1)[:num_in]
    weights = F.interpolate(
        labels[None, None], size=(num_out, _PERIOD), mode='bicubic'
    )[0, 0]
    positions = torch.arange(num_out, device=device, dtype=torch.float64)
    centres = ((positions + 0.5) * num_in / num_out - 0.5).floor().long()
    first = centres - _PERIOD // 2 + 1
    blocks = []
    for start in range(0, num_out, rows):
        queries = slice(start, min(start + rows, num_out))
        source = slice(
            max(0, int(first[start])),
            min(num_in, int(first[queries.stop - 1]) + _PERIOD),
        )
        row = torch.arange(source.start, source.stop, device=device)
        near = (row - first[queries, None]) // _PERIOD == 0
        taps = weights[queries][:, row % _PERIOD] * near
        blocks.append(_Rows(queries, source, taps))
    return blocks


def _empty_output(q: Tensor) -> Tensor:
    """``(B, heads, Nq, D)``, the values of all heads side by side."""
    b, heads, num_q, dim = q.shape
    return q.new_empty(b, num_q, heads, dim).transpose(1, 2)


@torch.library.custom_op('mmtransxnet::position_attention', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """:func:`attention` in blocks; ``table`` is ``(heads, Nq0, Nk)``."""
    # PyTorch's fused attention refuses masks where gradients seem wanted.
    q, k, v, table = (t.detach() for t in (q, k, v, table))
    out = _empty_output(q)
    for rows in _blocks(q, table):
        block = q[:, :, rows.queries]
        out[:, :, rows.queries] = _plain(block, k, v, rows.bias(table)[None])
    return out


@torch.library.custom_op(
    'mmtransxnet::position_attention_backward', mutates_args=()
)
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table, from scores computed again."""
    dtype = _compute_dtype(q)
    # Samples and heads alike are batches of matrix products.
    queries, keys, values, upstream = (
        t.to(dtype).flatten(0, 1) for t in (q, k, v, grad)
    )
    scaled = keys * q.size(-1) ** -0.5
    # Like the compiler's idea of them, contiguous whatever the inputs are.
    d_queries = queries.new_empty(queries.shape)
    d_scaled, d_values = (t.new_zeros(t.shape) for t in (keys, values))
    d_table = table.new_zeros(table.shape, dtype=_compute_dtype(table))
    for rows in _blocks(q, table):
        query, up = queries[:, rows.queries], upstream[:, rows.queries]
        bias = rows.bias(table).repeat(q.size(0), 1, 1).to(dtype)
        scores = torch.baddbmm(bias, query, scaled.mT)
        weights = scores.softmax(dim=-1)
        d_values.baddbmm_(weights.mT, up)
        d_scores = torch.ops.aten._softmax_backward_data(
            up @ values.mT, weights, -1, dtype
        )
        d_queries[:, rows.queries] = d_scores @ scaled
        d_scaled.baddbmm_(d_scores.mT, query)
        d_bias = d_scores.unflatten(0, q.shape[:2]).sum(dim=0)
        rows.add_gradient(d_table, d_bias)
    d_keys = d_scaled * q.size(-1) ** -0.5
    return (
        d_queries.view_as(q).to(q.dtype),
        d_keys.view_as(k).to(k.dtype),
        d_values.view_as(v).to(v.dtype),
        d_table.to(table.dtype),
    )


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    return _empty_output(q)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (q, k, v, table))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.mmtransxnet.position_attention_backward(
        grad.contiguous(), *ctx.saved_tensors
    )
    needed = ctx.needs_input_grad
    return tuple(g if n else None for g, n in zip(grads, needed, strict=True))


_attention.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.mmtransxnet.position_attention)
def _flops(q: Any, k: Any, *_: Any, **__: Any) -> int:
    """Two products, as PyTorch counts its own attention."""
    b, heads, num_q, dim = q
    return 2 * 2 * b * heads * num_q * k[2] * dim

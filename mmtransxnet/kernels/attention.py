"""Attention with a relative position table that a stage shares.

The published network treats the **flattened** ``(Nq, Nk)`` table as an image
and resizes that (bicubic, ``align_corners=False``) to inputs of other sizes,
although its rows and columns are grids themselves. This is unusual, but the
published dense-prediction models were trained and evaluated with it.

Such a resize is separable: ``A T B^T``, with four non-zeros in each row of
the sparse matrices A ``(Nq, Nq0)`` and B ``(Nk, Nk0)``. So the table for a
large map is never materialised. ``T B^T`` is computed once per stage; each
query needs four rows of it, and attention processes one block of queries at a
time, forward and backward.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmtransxnet.kernels.bicubic import taps_cache
from mmtransxnet.kernels.settings import settings_of, without_autocast

_MIN_ROWS = 64

# What fused attention needs on GPUs (PyTorch's minimum_gemm_alignment and
# preprocess_mask): bytes of a head's values, values between rows of the mask.
_HEAD_BYTES = 16
_MASK_VALUES = 8


def resize_position_table(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a relative position table to another number of tokens.

    Args:
        table: Position table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, Nq, Nk)``; the input itself if the size matches.
    """
    if table.size(2) == num_q and table.size(3) == num_k:
        return table
    return F.interpolate(
        table, size=(num_q, num_k), mode='bicubic', align_corners=False
    )


def position_bias(table: Tensor, x: Tensor, sr_ratio: int) -> Tensor:
    """The position table of a stage for a feature map, shared by its blocks.

    Tables that would be larger than the device's settings allow are resized to
    the number of keys only; :func:`attention` computes the rows it needs.

    Args:
        table: Position table ``(1, heads, Nq0, Nk0)``.
        x: Feature map ``(B, C, H, W)``.
        sr_ratio: Reduction r of the keys.

    Returns:
        Table ``(1, heads, Nq, Nk)`` with ``Nq = H W`` and
        ``Nk = ceil(H / r) ceil(W / r)``, or ``(1, heads, min(Nq0, Nq), Nk)``.
    """
    num_q = x.size(2) * x.size(3)
    num_k = -(-x.size(2) // sr_ratio) * -(-x.size(3) // sr_ratio)
    if not torch.jit.is_scripting():
        return resize_for_device(table, num_q, num_k)
    return resize_position_table(table, num_q, num_k)


def resize_for_device(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a table, or its keys only, as the device's settings say.

    See :func:`position_bias`.
    """
    settings = settings_of(table)
    limit, rows = settings.whole_table, num_q
    size = table.size(1) * num_q * num_k * table.element_size()
    if limit is not None and size > limit:
        rows = min(num_q, table.size(-2))
    resized = resize_position_table(table, rows, num_k)
    if settings.aligned_attention and rows == num_q:
        resized = _as_aligned_mask(resized)
    if not torch.is_grad_enabled():
        return resized
    # Never skipped: so the table's gradient is ready at the same point of the
    # backward pass for all sizes. Otherwise processes with images of different
    # sizes would reduce gradients in different orders.
    return resized.view_as(resized)


def _as_aligned_mask(table: Tensor) -> Tensor:
    """Do once what every block of the stage would do with the table.

    Its type is the one in which autocast computes attention, so the blocks'
    gradients are summed in it, as for parameters that autocast converts.
    """
    device, num_k = table.device.type, table.size(-1)
    available = torch.amp.is_autocast_available(device)
    if available and torch.is_autocast_enabled(device):
        table = table.to(torch.get_autocast_dtype(device))
    missing = -num_k % _MASK_VALUES
    return F.pad(table, (0, missing))[..., :num_k] if missing else table


def attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Attention with a relative position bias (paper, OSRA).

    ``softmax(q k^T / sqrt(D) + table) v`` with the table resized to Nq rows as
    :func:`torch.nn.functional.interpolate` does (bicubic).

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        table: Position bias ``(1, heads, Nq0, Nk)``.

    Returns:
        Tensor ``(B, heads, Nq, D)``.
    """
    if not torch.jit.is_scripting():
        return _attention_of_device(q, k, v, table)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=table.to(q.dtype))


def _attention_of_device(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> Tensor:
    # PyTorch's fused attention needs the values of a token to be contiguous.
    # Padding copies them anyway.
    if not _missing_values(q):
        q, k, v = (
            t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v)
        )
    if q.size(-2) == table.size(-2):
        if not _requires_grad(q, k, v, table):
            # With a parameter as mask, PyTorch would keep all scores.
            return _fused_attention(q, k, v, table.detach())
        if settings_of(q).trains_with_mask:
            return _fused_attention(q, k, v, table)
    return torch.ops.mmtransxnet.position_attention(q, k, v, table[0])


def _requires_grad(*tensors: Tensor) -> bool:
    """Whether gradients of any of the tensors are needed."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    bias = _as_mask(bias, q)
    dim, missing = q.size(-1), _missing_values(q)
    if not missing:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    q, k, v = (F.pad(t, (0, missing)) for t in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, scale=dim**-0.5
    )
    return out[..., :dim]


def _missing_values(q: Tensor) -> int:
    """Zeros to append to the values of a head to align them."""
    if not settings_of(q).aligned_attention:
        return 0
    return -q.size(-1) % (_HEAD_BYTES // q.element_size())


def _as_mask(bias: Tensor, q: Tensor) -> Tensor:
    """Convert the bias to a type that fused attention accepts.

    Under autocast q, k, v have low precision, the table that of a parameter.
    """
    exact = settings_of(q).exact_mask and bias.dtype == torch.float32
    return bias if exact else bias.to(q.dtype)


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    """Type to compute in: sums over keys need at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _query_blocks(q: Tensor, table: Tensor) -> Iterator[slice]:
    """Blocks of queries, sized by the device's settings."""
    size = settings_of(q).block_scores
    if q.device.type == 'cpu':
        size *= torch.get_num_threads()
    rows = max(_MIN_ROWS, size // (q.size(0) * q.size(1) * table.size(2)))
    for start in range(0, q.size(2), rows):
        yield slice(start, min(start + rows, q.size(2)))


class _Bias:
    """The bias of all queries, computed block by block.

    Args:
        table: Table ``(heads, Nq0, Nk)``.
        num_q: Number of queries.
    """

    def __init__(self, table: Tensor, num_q: int) -> None:
        self.table = table.to(_compute_dtype(table))
        self.taps = None
        if table.size(1) != num_q:
            self.taps = taps_cache.get(table.size(1), num_q, self.table)

    def of(self, queries: slice) -> Tensor:
        """Bias ``(heads, queries, Nk)``."""
        if self.taps is None:
            return self.table[:, queries]
        return self.taps.bias(self.table, queries)

    def add_gradient(
        self, total: Tensor, gradient: Tensor, queries: slice
    ) -> None:
        """Add the gradient of the bias to that of the table."""
        if self.taps is None:
            total[:, queries] += gradient
        else:
            self.taps.add_gradient(total, gradient, queries)


def _empty_output(q: Tensor) -> Tensor:
    """``(B, heads, Nq, D)``, contiguous over the heads of a token."""
    b, heads, num_q, dim = q.shape
    return q.new_empty(b, num_q, heads, dim).transpose(1, 2)


@torch.library.custom_op('mmtransxnet::position_attention', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """:func:`attention` in blocks; ``table`` is ``(heads, Nq0, Nk)``."""
    # PyTorch's fused attention rejects masks where gradients seem needed.
    q, k, v, table = (t.detach() for t in (q, k, v, table))
    out = _empty_output(q)
    with without_autocast(q):
        bias = _Bias(table, q.size(2))
        for queries in _query_blocks(q, table):
            out[:, :, queries] = _fused_attention(
                q[:, :, queries], k, v, bias.of(queries)[None]
            )
    return out


@torch.library.custom_op(
    'mmtransxnet::position_attention_backward', mutates_args=()
)
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table, from recomputed scores."""
    with without_autocast(q):
        return _gradients(*(t.detach() for t in (grad, q, k, v, table)))


def _gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = _compute_dtype(q)
    # Samples and heads are one batch dimension of matrix products.
    queries, keys, values, upstream = (
        t.to(dtype).flatten(0, 1) for t in (q, k, v, grad)
    )
    scaled = keys * q.size(-1) ** -0.5
    # Always contiguous, as the registered fake implementation returns them.
    d_queries = queries.new_empty(queries.shape)
    d_scaled, d_values = (t.new_zeros(t.shape) for t in (keys, values))
    d_table = table.new_zeros(table.shape, dtype=_compute_dtype(table))
    bias = _Bias(table, q.size(2))
    for block in _query_blocks(q, table):
        query, up = queries[:, block], upstream[:, block]
        added = _as_mask(bias.of(block), q).to(dtype)
        repeated = added.repeat(q.size(0), 1, 1)
        scores = torch.baddbmm(repeated, query, scaled.mT)
        weights = scores.softmax(dim=-1)
        d_values.baddbmm_(weights.mT, up)
        d_scores = torch.ops.aten._softmax_backward_data(
            up @ values.mT, weights, -1, dtype
        )
        d_queries[:, block] = d_scores @ scaled
        d_scaled.baddbmm_(d_scores.mT, query)
        d_bias = d_scores.unflatten(0, q.shape[:2]).sum(dim=0)
        bias.add_gradient(d_table, d_bias.to(d_table.dtype), block)
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


def _no_second_derivative(ctx: Any, *grads: Tensor) -> Any:
    raise RuntimeError(
        'attention in blocks has no second derivative; compute with '
        "PyTorch's own: within mmtransxnet.kernels.settings.plain() and "
        'torch.nn.attention.sdpa_kernel(SDPBackend.MATH)'
    )


_attention.register_autograd(_backward, setup_context=_save)
_attention_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.mmtransxnet.position_attention)
def _flops(q: Any, k: Any, *_: Any, **__: Any) -> int:
    """Two products, as PyTorch counts its own attention."""
    b, heads, num_q, dim = q
    return 2 * 2 * b * heads * num_q * k[2] * dim


@register_flop_formula(torch.ops.mmtransxnet.position_attention_backward)
def _backward_flops(_: Any, *inputs: Any, **__: Any) -> int:
    """Five products, as PyTorch counts: the scores are computed again."""
    return _flops(*inputs) * 5 // 2

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

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmtransxnet.kernels.attention_blocks import (
    attend,
    empty_output,
    fused_attention,
    gradients,
    missing_values,
    resize_by_rows,
)
from mmtransxnet.kernels.settings import (
    computed_type,
    settings_of,
    without_autocast,
)

# What fused attention needs on GPUs (PyTorch's preprocess_mask): values
# between rows of the mask.
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

    Tables that would be larger than the device's settings allow, or whose
    complete form has no fast gradient there, are resized to the number of keys
    only; :func:`attention` computes the rows it needs.

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
    rows = num_q
    size = table.size(1) * num_q * num_k * table.element_size()
    if settings.whole_table is not None and (
        size > settings.whole_table
        or (torch.is_grad_enabled() and not settings.trains_with_mask)
    ):
        rows = min(num_q, table.size(-2))
    if settings.resize_by_rows and not torch.compiler.is_compiling():
        resized = resize_by_rows(table, rows, num_k)
    else:
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
    num_k = table.size(-1)
    table = table.to(computed_type(table))
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
    # Operators of our own are not autocast.
    q, k, v = (t.to(computed_type(t)) for t in (q, k, v))
    # PyTorch's fused attention needs the values of a token to be contiguous.
    # Padding copies them anyway.
    if not missing_values(q):
        q, k, v = (
            t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v)
        )
    if q.size(-2) == table.size(-2):
        if not _requires_grad(q, k, v, table):
            # With a parameter as mask, PyTorch would keep all scores.
            return fused_attention(q, k, v, table.detach())
        if settings_of(q).trains_with_mask:
            return fused_attention(q, k, v, table)
    return torch.ops.mmtransxnet.position_attention(q, k, v, table[0])


def _requires_grad(*tensors: Tensor) -> bool:
    """Whether gradients of any of the tensors are needed."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


@torch.library.custom_op('mmtransxnet::position_attention', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """:func:`attention` in blocks; ``table`` is ``(heads, Nq0, Nk)``."""
    # PyTorch's fused attention rejects masks where gradients seem needed.
    q, k, v, table = (t.detach() for t in (q, k, v, table))
    with without_autocast(q):
        return attend(q, k, v, table)


@torch.library.custom_op(
    'mmtransxnet::position_attention_backward', mutates_args=()
)
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table, from recomputed scores."""
    with without_autocast(q):
        return gradients(*(t.detach() for t in (grad, q, k, v, table)))


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    return empty_output(q)


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

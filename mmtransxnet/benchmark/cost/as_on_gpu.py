"""Make PyTorch choose on tensors without data as it does on a GPU.

The tensors are fake CPU tensors: those of a GPU have no backward pass on a
machine without one. So what depends on the device is chosen here.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransxnet.kernels.settings import UNMEASURED, settings_for

# Autocast of a GPU computes these in float32, that of a CPU does not.
_FLOAT32 = (
    (F, 'group_norm'),
    (F, 'layer_norm'),
    (F, 'log_softmax'),
    (F, 'softmax'),
    (torch, 'softmax'),
    (Tensor, 'softmax'),
)

# Fused attention wants rows of the mask to begin at multiples of this.
_MASK_ALIGNMENT = 8


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Compute with a GPU's settings, attention and autocast."""
    # Settings count per thread on a CPU.
    scores = UNMEASURED.block_scores // torch.get_num_threads()
    with ExitStack() as stack:
        settings = replace(UNMEASURED, block_scores=scores)
        stack.enter_context(settings_for('cpu', settings))
        # A mode for functions would not be active in the backward pass, which
        # recomputes some of them.
        stack.enter_context(
            patch.object(F, 'scaled_dot_product_attention', _attention)
        )
        for module, name in _FLOAT32:
            function = _in_float32(getattr(module, name))
            stack.enter_context(patch.object(module, name, function))
        yield


def _in_float32(function: Callable) -> Callable:
    """A function of a tensor, computed in float32 within autocast."""

    def compute(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_autocast_enabled('cpu'):
            x = x.float()
        return function(x, *args, **kwargs)

    return compute


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention as PyTorch's selection for Ampere and newer computes it.

    Memory-efficient attention stands for all fused kernels: they read and
    write the same tensors. With a mask, no other is available. It needs
    vectors of a multiple of 16 bytes; flash attention, which needs low
    precision and no mask, pads them itself.
    """
    if torch.is_autocast_enabled('cpu'):
        dtype = torch.get_autocast_dtype('cpu')
        q, k, v = (t.to(dtype) for t in (q, k, v))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    flash = attn_mask is None and q.itemsize < 4
    if q.size(-1) * q.itemsize % 16 and not flash:
        return torch.ops.aten._scaled_dot_product_attention_math(
            q, k, v, attn_mask, dropout_p, is_causal, scale=scale
        )[0]
    needs_grad = torch.is_grad_enabled() and any(
        t.requires_grad for t in (q, k, v)
    )
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q,
        k,
        v,
        None if attn_mask is None else _aligned(attn_mask, q, k),
        needs_grad,
        dropout_p,
        is_causal,
        scale=scale,
    )[0]


def _aligned(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The mask of each sample and head, its rows copied if not aligned."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -1e9)
    starts = [n % _MASK_ALIGNMENT for n in mask.stride()[:-1]]
    if any(starts) or mask.stride(-1) != 1:
        missing = _MASK_ALIGNMENT - mask.size(-1) % _MASK_ALIGNMENT
        mask = F.pad(mask, (0, missing))[..., : mask.size(-1)]
    return mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))

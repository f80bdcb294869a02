"""Convolutions that oneDNN computes together with what follows them.

An activation or a sum then needs no map of its own in memory. For inference on
CPUs only: the operators, which PyTorch's compiler uses as well, have no
gradient. Where one is needed, the steps are computed one by one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mmtransxnet.kernels.channels_last import GELU
from mmtransxnet.kernels.depthwise import DepthwiseConv2d, has_hooks
from mmtransxnet.kernels.settings import computed_type, settings_of


def conv_gelu(layers: Any, x: Tensor) -> Any:
    """``gelu(conv(x))``.

    Args:
        layers: A module with a ``conv`` and an activation ``act``.
        x: Feature map ``(B, C, H, W)``.
    """
    conv, act = layers.conv, layers.act
    if (
        type(act) not in (nn.GELU, GELU)
        or 'forward' in act.__dict__
        or act.approximate != 'none'
        or has_hooks(act)
        or not _is_fused(conv, x)
    ):
        return NotImplemented
    return torch.ops.mkldnn._convolution_pointwise(
        *_operands(conv, x), *_geometry(conv), 'gelu', [], 'none'
    )


def conv_add(conv: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """``conv(x) + other``, where both have the same size.

    Args:
        conv: The convolution.
        x: Its input ``(B, C, H, W)``.
        other: What is added to its output.
    """
    if (
        not _is_fused(conv, x)
        or other.dtype != computed_type(x)
        or (torch.is_grad_enabled() and other.requires_grad)
    ):
        return other + conv(x)
    x, *weights = _operands(conv, x)
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, other, *weights, *_geometry(conv), 'add', None, None, [], None
    )


def _is_fused(conv: Any, x: Tensor) -> bool:
    """Whether oneDNN computes a convolution with what follows."""
    return bool(
        settings_of(x).fused_convolution
        and type(conv) in (nn.Conv2d, DepthwiseConv2d)
        # As a product, it takes a tenth of the time.
        and not (conv.groups > 1 and conv.kernel_size == (1, 1))
        and not getattr(conv, 'residual', False)
        and conv.padding_mode == 'zeros'
        and not isinstance(conv.padding, str)
        and 'forward' not in vars(conv)
        and not has_hooks(conv)
        and not (torch.is_grad_enabled() and _needs_gradient(conv, x))
        and not _is_transformed()
        and type(x) is Tensor
        and x.numel() > 0
        and _computes_in(computed_type(x))
        and computed_type(conv.weight) == computed_type(x)
    )


def _is_transformed() -> bool:
    """Whether a compiler, forward-mode AD or torch.func is at work."""
    return (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _computes_in(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in a type on this machine."""
    if not (
        torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    ):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def _needs_gradient(conv: nn.Module, x: Tensor) -> bool:
    return x.requires_grad or any(p.requires_grad for p in conv.parameters())


def _operands(conv: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    dtype = computed_type(x)
    bias = None if conv.bias is None else conv.bias.to(dtype)
    return x.to(dtype), conv.weight.to(dtype), bias


def _geometry(conv: Any) -> tuple[Any, ...]:
    return conv.padding, conv.stride, conv.dilation, conv.groups

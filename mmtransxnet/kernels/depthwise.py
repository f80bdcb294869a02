"""Depthwise convolution without the slow paths of CPU libraries.

The gradient of a depthwise kernel correlates each channel of the input with
the same channel of the output's gradient. That is again a depthwise
convolution, with the gradient as a kernel as large as the map and an output of
size ``K x K``. The libraries' backward kernels are 4 to 20 times slower than
this for K of 5 and more (docs/performance.md), and were more than half of a
training step.

A 1x1 kernel only scales its channel; the libraries' convolutions take about
ten times as long as the multiplication.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.settings import PLAIN, computed_type, settings_of

# For smaller kernels, the library's backward kernel is faster.
_MIN_KERNEL_SIZE = 5


class _DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution with stride 1 that keeps height and width.

    ``weights`` are the kernels of consecutive channels, of different sizes.
    A single convolution with the largest size, the others padded with zeros,
    takes less time than one convolution per size with split and concatenation.
    """

    @staticmethod
    def forward(
        x: Tensor, bias: Tensor, residual: bool, *weights: Tensor
    ) -> Tensor:
        return _conv2d(x, merged_kernels(weights, residual), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, ctx.residual, *weights = inputs
        ctx.save_for_backward(x, *weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        needs_x, needs_bias, _, *needed = ctx.needs_input_grad
        kernel = merged_kernels(weights, ctx.residual)
        return (
            convolution_backward(x, kernel, grad, 0, len(kernel))
            if needs_x
            else None,
            grad.sum(dim=(0, 2, 3)) if needs_bias else None,
            None,
            *weight_gradients(x, weights, grad, needed),
        )


def weight_gradients(
    x: Tensor, weights: Sequence[Tensor], grad: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of the kernels of consecutive channels.

    Args:
        x: Input ``(B, C, H, W)``.
        weights: Kernels ``(C_i, 1, K_i, K_i)``.
        grad: Gradient of the output ``(B, C, H, W)``.
        needed: Which are needed; None is returned for the others.
    """
    counts = [weight.size(0) for weight in weights]
    parts = zip(
        x.split(counts, dim=1),
        weights,
        grad.split(counts, dim=1),
        needed,
        strict=True,
    )
    return [_weight_gradient(*p) if need else None for *p, need in parts]


def merged_kernels(weights: Sequence[Tensor], residual: bool) -> Tensor:
    """Kernels ``(C, 1, K, K)``, padded to the size of the largest.

    With ``residual``, they include the identity.
    """
    largest = max(weight.size(-1) for weight in weights)
    padded = [
        F.pad(weight, [(largest - weight.size(-1)) // 2] * 4)
        for weight in weights
    ]
    kernel = padded[0] if len(padded) == 1 else torch.cat(padded)
    if not residual:
        return kernel
    identity = kernel.new_zeros(kernel.shape[2:])
    identity[largest // 2, largest // 2] = 1
    return kernel + identity


def convolution_backward(
    x: Tensor, weight: Tensor, grad: Tensor, wanted: int, groups: int
) -> Tensor:
    """PyTorch's own gradient of the input (0) or the kernel (1).

    Args:
        x: Input ``(B, C, H, W)``.
        weight: Kernels of size K; stride 1, zero padding ``K // 2``.
        grad: Gradient of the output.
        wanted: Which gradient.
        groups: Groups of the convolution.
    """
    padding = weight.size(-1) // 2
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        stride=[1, 1],
        padding=[padding, padding],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=groups,
        # If the bias gradient is requested, oneDNN computes the slow part too.
        output_mask=[wanted == 0, wanted == 1, False],
    )[wanted]


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """Gradient ``(C, 1, K, K)`` of the kernel."""
    b, c, h, w = x.shape
    if weight.size(-1) == 1:
        return (x * grad).sum(dim=(0, 2, 3)).view_as(weight)
    if weight.size(-1) < _MIN_KERNEL_SIZE:
        return convolution_backward(x, weight, grad, 1, c)
    correlation = F.conv2d(
        x.reshape(1, b * c, h, w),
        grad.reshape(b * c, 1, h, w),
        padding=weight.size(-1) // 2,
        groups=b * c,
    )
    return correlation.reshape(b, *weight.shape).sum(dim=0)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(
        x,
        weight,
        bias,
        # A number alone is lost in traces of torch 2.7 and older.
        padding=[weight.size(-1) // 2] * 2,
        groups=weight.size(0),
    )


def _scale(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with kernels ``(C, 1, 1, 1)``."""
    dtype = computed_type(x)
    scaled = x.to(dtype) * weight.view(-1, 1, 1).to(dtype)
    return scaled if bias is None else scaled + bias.view(-1, 1, 1).to(dtype)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel with its own kernel, keeping height and width.

    Args:
        x: Feature map ``(B, C, H, W)``.
        weight: Kernels ``(C, 1, K, K)``, K odd.
        bias: Bias ``(C,)`` or None.

    Returns:
        Feature map ``(B, C, H, W)``; equal to ``F.conv2d`` and its
        gradients up to rounding.
    """
    if not torch.jit.is_scripting():
        return _depthwise_fast(x, weight, bias)
    return _conv2d(x, weight, bias)


def _depthwise_fast(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not settings_of(x).fast_depthwise:
        return _conv2d(x, weight, bias)
    if weight.size(-1) == 1:
        return _scale(x, weight, bias)
    if (
        bias is None
        or weight.size(-1) < _MIN_KERNEL_SIZE
        or not (torch.is_grad_enabled() and weight.requires_grad)
    ):
        return _conv2d(x, weight, bias)
    x, weight, bias = (t.to(computed_type(x)) for t in (x, weight, bias))
    return _DepthwiseConv.apply(x, bias, False, weight)


def _is_merged(x: Tensor) -> bool:
    """Whether to merge the kernels and their residuals."""
    # In low precision, adding the identity would round the kernel away.
    return (
        settings_of(x).fast_depthwise
        and x.dtype.itemsize >= 4
        and not torch.is_autocast_enabled(x.device.type)
    )


def _add_merged(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Compute ``x`` plus depthwise convolutions of consecutive channels."""
    bias = biases[0] if len(biases) == 1 else torch.cat(list(biases))
    if not torch.is_grad_enabled():
        return _conv2d(x, merged_kernels(weights, residual=True), bias)
    return _DepthwiseConv.apply(x, bias, True, *weights)


def _convolve(conv: Any, x: Tensor) -> Any:
    """Convolve with the residual included in the kernel, if there is one."""
    if not settings_of(x).fast_depthwise:
        return NotImplemented
    if conv.residual and _is_merged(x):
        return _add_merged(x, [conv.weight], [conv.bias])
    out = _depthwise_fast(x, conv.weight, conv.bias)
    return x + out if conv.residual else out


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise ``nn.Conv2d`` with stride 1 that keeps height and width.

    Args:
        channels: Number of channels C.
        kernel_size: Size K of the kernels, odd.
        bias: Whether there is a bias.
        residual: Whether the input is added to the output; needs a bias.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        bias: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels,
            bias=bias,
        )
        self.residual = residual

    @computed_by(_convolve)
    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, H, W)``; see :func:`depthwise_conv2d`."""
        out = self._conv_forward(x, self.weight, self.bias)
        return x + out if self.residual else out

    def extra_repr(self) -> str:
        """See ``nn.Conv2d``."""
        added = ', residual=True' if self.residual else ''
        return super().extra_repr() + added


def multi_scale(module: Any, x: Tensor) -> Any:
    """Run the depthwise convolutions of consecutive channels together.

    Args:
        module: A module whose ``proj`` holds :class:`DepthwiseConv2d` with
            ``residual``, or their replacements.
        x: Feature map ``(B, C, H, W)``.

    Returns:
        Feature map ``(B, C, H, W)``; ``NotImplemented`` for the formula, or
        where a convolution must be called as a module.
    """
    convs: Any = list(module.proj)
    if settings_of(x) is PLAIN or any(map(_must_be_called, convs)):
        return NotImplemented
    if not _is_merged(x):
        # One addition for all convolutions.
        counts = [conv.in_channels for conv in convs]
        parts = zip(x.split(counts, dim=1), convs, strict=True)
        return x + torch.cat(
            [depthwise_conv2d(y, c.weight, c.bias) for y, c in parts], dim=1
        )
    weights = [conv.weight for conv in convs]
    return _add_merged(x, weights, [conv.bias for conv in convs])


def _must_be_called(module: nn.Module) -> bool:
    """Whether a depthwise convolution must be called as a module.

    This is so with hooks (pruning and older weight norms are hooks, too),
    parametrisations and replacements of the module or its ``forward``.
    """
    return type(module) is not DepthwiseConv2d or must_be_called(module)


def must_be_called(module: nn.Module) -> bool:
    """Whether a hook or a replacement has to see that a module is called."""
    return 'forward' in module.__dict__ or has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks."""
    all_hooks: Any = torch.nn.modules.module
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        # torch has a function for these only since 2.7.
        or all_hooks._global_forward_hooks
        or all_hooks._global_forward_pre_hooks
        or all_hooks._global_backward_hooks
        or all_hooks._global_backward_pre_hooks
    )

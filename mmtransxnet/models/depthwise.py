"""Depthwise convolution without the slow paths of CPU libraries.

The gradient of a depthwise kernel correlates each channel of the input with
the same channel of the output's gradient. That is a depthwise convolution
again, with the gradient as a kernel as large as the map, of which only
``K x K`` results are wanted. The libraries' backward kernels are 4 to 20
times slower than this for K of 5 and more (docs/performance.md), and were
more than half of a training step.

A kernel of one value only scales its channel; the libraries' convolutions
take about ten times as long as the multiplication.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

# Below, the backward kernel of the library is the faster one.
_MIN_KERNEL_SIZE = 5


class _DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution with stride 1 that keeps height and width."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _plain(x, weight, bias)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Any) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _input_gradient(x, weight, grad) if needs_x else None,
            _weight_gradient(x, weight, grad) if needs_weight else None,
            grad.sum(dim=(0, 2, 3)) if needs_bias else None,
        )


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """Gradient ``(B, C, H, W)`` of the input."""
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
        groups=weight.size(0),
        # With the bias asked for, oneDNN computes the slow part as well.
        output_mask=[True, False, False],
    )[0]


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """Gradient ``(C, 1, K, K)`` of the kernel."""
    b, c, h, w = x.shape
    correlation = F.conv2d(
        x.reshape(1, b * c, h, w),
        grad.reshape(b * c, 1, h, w),
        padding=weight.size(-1) // 2,
        groups=b * c,
    )
    return correlation.reshape(b, *weight.shape).sum(dim=0)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(
        x,
        weight,
        bias,
        padding=weight.size(-1) // 2,
        groups=weight.size(0),
    )


def _scale(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with kernels ``(C, 1, 1, 1)``."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    scaled = x.to(dtype) * weight.view(-1, 1, 1).to(dtype)
    return scaled if bias is None else scaled + bias.view(-1, 1, 1).to(dtype)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel with its own kernel, keeping height and width.

    Args:
        x: Feature map ``(B, C, H, W)``.
        weight: Kernels ``(C, 1, K, K)``, K odd.
        bias: Bias ``(C,)``, if there is one.

    Returns:
        Feature map ``(B, C, H, W)``; equal to ``F.conv2d`` and its
        gradients up to rounding.
    """
    # On the meta device, where costs are counted, it stays a convolution.
    if weight.size(-1) == 1 and x.device.type != 'meta':
        return _scale(x, weight, bias)
    if (
        bias is None
        or weight.size(-1) < _MIN_KERNEL_SIZE
        or x.device.type != 'cpu'
        or not (torch.is_grad_enabled() and weight.requires_grad)
        or torch.compiler.is_exporting()
    ):
        return _plain(x, weight, bias)
    if torch.is_autocast_enabled('cpu'):
        dtype = torch.get_autocast_dtype('cpu')
        x, weight, bias = (t.to(dtype) for t in (x, weight, bias))
    return _DepthwiseConv.apply(x, weight, bias)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise ``nn.Conv2d`` with stride 1 that keeps height and width.

    Args:
        channels: Number of channels C.
        kernel_size: Size K of the kernels, odd.
        bias: Whether there is a bias.
    """

    def __init__(
        self, channels: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, H, W)``; see :func:`depthwise_conv2d`."""
        return depthwise_conv2d(x, self.weight, self.bias)

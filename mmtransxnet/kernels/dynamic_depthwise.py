"""Depthwise convolution of every sample with a kernel of its own."""

import torch
from torch import Tensor

from mmtransxnet.kernels.depthwise import depthwise_conv2d

# Before 2.13, a compiled convolution cannot have a bias that is a view.
_ADDS_BIAS = torch.__version__ < '2.13'


def dynamic_depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Convolve each channel of each sample with its own kernel.

    One grouped convolution serves all samples: (sample, channel) becomes the
    channel.

    Args:
        x: Feature map ``(B, C, H, W)``.
        weight: Kernels ``(B, C, K, K)``, K odd.
        bias: Bias ``(B, C)``.

    Returns:
        Feature map ``(B, C, H, W)`` in the memory format of ``x``.
    """
    b, c, h, w = x.shape
    kernel = weight.reshape(b * c, 1, weight.size(2), weight.size(3))
    if not torch.jit.is_scripting() and x.stride(1) == 1 and c > 1:
        # Channels-last is kept: converting to contiguous and convolving there
        # takes longer.
        merged = x.permute(2, 3, 0, 1).reshape(1, h, w, b * c)
        out = _convolve(merged.permute(0, 3, 1, 2), kernel, bias.reshape(-1))
        out = out.permute(0, 2, 3, 1).reshape(h, w, b, c).permute(2, 3, 0, 1)
        # Otherwise the concatenation that follows would be contiguous.
        return out.contiguous(memory_format=torch.channels_last)
    out = _convolve(x.reshape(1, b * c, h, w), kernel, bias.reshape(-1))
    return out.reshape(b, c, h, w)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    if not torch.jit.is_scripting():
        return _convolve_or_add(x, kernel, bias)
    return depthwise_conv2d(x, kernel, bias)


def _convolve_or_add(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    if not (_ADDS_BIAS and torch.compiler.is_compiling()):
        return depthwise_conv2d(x, kernel, bias)
    out = depthwise_conv2d(x, kernel, torch.zeros_like(bias))
    return out + bias.view(-1, 1, 1).to(out.dtype)

"""Layers in the form that engines compute fastest, as measured."""

from typing import Any

from torch import Tensor, nn

from mmtransxnet.models.inference_form import FoldedFFN


class Norm(nn.Module):
    """A GroupNorm with a single group, in operators that OpenVINO fuses.

    ONNX's form of a GroupNorm reshapes the map, for which OpenVINO copies it
    to another memory layout and back.

    Args:
        norm: The GroupNorm.
        affine: Whether its weights and biases are applied.
    """

    def __init__(self, norm: nn.GroupNorm, affine: bool) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if affine and norm.affine:
            self.weight = nn.Parameter(norm.weight[:, None, None].clone())
            self.bias = nn.Parameter(norm.bias[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the samples of ``(B, C, H, W)``."""
        x = x - x.mean(dim=(1, 2, 3), keepdim=True)
        variance = (x * x).mean(dim=(1, 2, 3), keepdim=True)
        x = x / (variance + self.eps).sqrt()
        if self.weight is None or self.bias is None:
            return x
        return x * self.weight + self.bias


def norm_of(norm: nn.Module) -> nn.Module:
    """The deploy form of a norm; others than those of TransXNet are kept."""
    if isinstance(norm, nn.GroupNorm) and norm.num_groups == 1:
        return Norm(norm, affine=True)
    return norm


def pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A 1x1 convolution with these values."""
    conv = nn.Conv2d(weight.size(1), weight.size(0), 1)
    conv.weight = nn.Parameter(weight.contiguous())
    conv.bias = nn.Parameter(bias.contiguous())
    return conv


def depthwise(scale: Tensor) -> nn.Conv2d:
    """A product with ``(C, 1, 1)`` as a convolution."""
    channels = len(scale)
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    conv.weight = nn.Parameter(scale.reshape(-1, 1, 1, 1).clone())
    return conv


def norm_and_ffn(norm: Any, ffn: Any) -> tuple[nn.Module, nn.Module]:
    """The norm before an FFN, its weights and biases moved into the FFN."""
    form = norm_of(norm)
    if not isinstance(form, Norm) or not isinstance(ffn, FoldedFFN):
        return form, ffn
    if form.weight is None:
        return form, ffn
    branches: Any = ffn.branches
    for branch in branches:
        expand = branch[0].conv
        weight = expand.weight
        bias = weight.flatten(1) @ norm.bias
        if expand.bias is not None:
            bias = bias + expand.bias
        branch[0].conv = pointwise(weight * form.weight, bias)
    return Norm(norm, affine=False), ffn

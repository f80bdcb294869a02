"""Operators that torch has, but ONNX only by other means.

Each is a custom operator, so that the traced graph has it as one node, and
:func:`translations` gives its form in ONNX.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransxnet.deploy.graphs import nms, roi_align


@torch.library.custom_op(
    'mmtransxnet_deploy::conv_per_sample', mutates_args=()
)
def conv_per_sample(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution of every sample with a kernel of its own.

    Args:
        x: Feature map ``(B, C, H, W)``.
        kernel: Kernels ``(B, C, K, K)``, K odd.
        bias: Biases ``(B, C)``.

    Returns:
        Feature map ``(B, C, H, W)``.
    """
    return grouped_conv(x, kernel, bias)


@conv_per_sample.register_fake
def _(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def grouped_conv(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """:func:`conv_per_sample` as one convolution of ``B C`` groups."""
    b, c, h, w = x.shape
    size = kernel.size(-1)
    out = F.conv2d(
        x.reshape(1, b * c, h, w),
        kernel.reshape(b * c, 1, size, size),
        bias.reshape(-1),
        padding=size // 2,
        groups=b * c,
    )
    return out.reshape(b, c, h, w)


@torch.library.custom_op(
    'mmtransxnet_deploy::resize_bilinear', mutates_args=()
)
def resize_bilinear(x: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    """Resize to a size that is an input of the graph.

    Args:
        x: Map ``(B, C, H, W)``.
        size: Height and width ``(2,)``, int64.
        align_corners: See ``F.interpolate``.

    Returns:
        Map ``(B, C, height, width)``.
    """
    height, width = size.tolist()
    # An operator must not return its input.
    if (height, width) == tuple(x.shape[2:]):
        return x.clone()
    return F.interpolate(
        x, (height, width), mode='bilinear', align_corners=align_corners
    )


@resize_bilinear.register_fake
def _(x: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    context = torch.library.get_ctx()
    height = context.new_dynamic_size()
    width = context.new_dynamic_size()
    return x.new_empty(x.size(0), x.size(1), height, width)


def translations(opset: int) -> dict[Callable, Callable]:
    """The operators' forms in ONNX, for ``torch.onnx.export``."""
    import onnxscript

    op = onnxscript.values.Opset('', opset)

    def conv_per_sample_onnx(x: Any, kernel: Any, bias: Any) -> Any:
        # The number of groups is an attribute, so it cannot depend on the
        # batch.
        channels, size = kernel.shape[1], kernel.shape[3]
        body = _convolution_of_a_sample(channels, size, opset)
        outs = op.Scan(
            op.Unsqueeze(x, op.Constant(value_ints=[1])),
            op.Unsqueeze(kernel, op.Constant(value_ints=[2])),
            bias,
            body=body,
            num_scan_inputs=3,
        )
        return op.Squeeze(outs, op.Constant(value_ints=[1]))

    def resize_bilinear_onnx(x: Any, size: Any, align_corners: bool) -> Any:
        kept = op.Shape(x, start=0, end=2)
        mode = 'align_corners' if align_corners else 'half_pixel'
        return op.Resize(
            x,
            None,
            None,
            op.Concat(kept, size, axis=0),
            mode='linear',
            coordinate_transformation_mode=mode,
        )

    operators = torch.ops.mmtransxnet_deploy
    return {
        operators.conv_per_sample.default: conv_per_sample_onnx,
        operators.resize_bilinear.default: resize_bilinear_onnx,
        **nms.translations(opset),
        **roi_align.translations(opset),
    }


def _convolution_of_a_sample(channels: int, size: int, opset: int) -> Any:
    """A graph with the convolution of ``(1, C, H, W)``."""
    import onnx

    half = size // 2
    return onnx.parser.parse_graph(
        f'sample (float[1, {channels}, h, w] x, '
        f'float[{channels}, 1, {size}, {size}] kernel, '
        f'float[{channels}] bias) => (float[1, {channels}, h, w] y) '
        f'{{ y = Conv<group = {channels}, kernel_shape = [{size}, {size}], '
        f'pads = [{half}, {half}, {half}, {half}]>(x, kernel, bias) }}'
    )

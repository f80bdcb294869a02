"""Deformable convolution, versions 1 and 2 (modulated).

Dai et al., ICCV 2017, and Zhu et al., CVPR 2019. torchvision's kernels take
offsets in mmcv's order: for every group and kernel position y, then x.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import kernels, upcast

_OUTSIDE = 1e6  # pixels, beyond any image


@torch.no_grad()
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the deformable convolution of ``input``.

    Args:
        input (Tensor): Shape (B, C_in, H, W).
        weight (Tensor): Shape (C_out, C_in / group, kH, kW).
        offset (Tensor): In pixels, shape
            (B, deformable_group * kH * kW * 2, H_out, W_out).
        output (Tensor): Output, shape (B, C_out, H_out, W_out).
        columns (Tensor): mmcv's buffer, not used.
        ones (Tensor): mmcv's buffer, not used.
        kW (int): Kernel width.
        kH (int): Kernel height.
        dW (int): Horizontal stride.
        dH (int): Vertical stride.
        padW (int): Horizontal padding.
        padH (int): Vertical padding.
        dilationW (int): Horizontal dilation.
        dilationH (int): Vertical dilation.
        group (int): Groups of the convolution.
        deformable_group (int): Groups of channels that share offsets.
        im2col_step (int): Samples per step in mmcv, not used.

    Raises:
        RuntimeError: If the input is smaller than the kernel, or shapes do
            not match.
    """
    _check_input(input, kH, kW)
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    tensors = _operands(input, weight, offset)
    output.copy_(
        kernels().deform_conv2d(
            *tensors, *geometry, group, deformable_group, False
        )
    )


@torch.no_grad()
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of input and offset.

    Args:
        input (Tensor): As in :func:`deform_conv_forward`, like all that are
            not named here.
        offset (Tensor): Sampling offsets.
        gradOutput (Tensor): Shape (B, C_out, H_out, W_out).
        gradInput (Tensor): Output, like ``input``.
        gradOffset (Tensor): Output, like ``offset``.
        weight (Tensor): The kernel.
        columns (Tensor): mmcv's buffer, not used.
        kW (int): Kernel width.
        kH (int): Kernel height.
        dW (int): Horizontal stride.
        dH (int): Vertical stride.
        padW (int): Horizontal padding.
        padH (int): Vertical padding.
        dilationW (int): Horizontal dilation.
        dilationH (int): Vertical dilation.
        group (int): Groups of the convolution.
        deformable_group (int): Groups of channels that share offsets.
        im2col_step (int): Not used.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    grads = _backward(
        gradOutput,
        _operands(input, weight, offset),
        geometry,
        (group, deformable_group, False),
    )
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


@torch.no_grad()
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Write the gradient of the weight.

    Args:
        input (Tensor): As in :func:`deform_conv_forward`, like all that are
            not named here.
        offset (Tensor): Sampling offsets.
        gradOutput (Tensor): Shape (B, C_out, H_out, W_out).
        gradWeight (Tensor): Output, like the weight.
        columns (Tensor): mmcv's buffer, not used.
        ones (Tensor): mmcv's buffer, not used.
        kW (int): Kernel width.
        kH (int): Kernel height.
        dW (int): Horizontal stride.
        dH (int): Vertical stride.
        padW (int): Horizontal padding.
        padH (int): Vertical padding.
        dilationW (int): Horizontal dilation.
        dilationH (int): Vertical dilation.
        group (int): Groups of the convolution.
        deformable_group (int): Groups of channels that share offsets.
        scale (float): Factor of the gradient.
        im2col_step (int): Not used.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    # The weight's gradient does not depend on the weight: use any.
    grads = _backward(
        gradOutput,
        _operands(input, torch.zeros_like(gradWeight), offset),
        geometry,
        (group, deformable_group, False),
    )
    gradWeight.copy_(scale * grads[1])


@torch.no_grad()
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the modulated deformable convolution of ``input``.

    Offsets and masks may be larger than stated: see :func:`_first_values`.

    Args:
        input (Tensor): Shape (B, C_in, H, W).
        weight (Tensor): Shape (C_out, C_in / group, kernel_h, kernel_w).
        bias (Tensor): Shape (C_out,), or empty without ``with_bias``.
        ones (Tensor): mmcv's buffer, not used.
        offset (Tensor): In pixels, shape
            (B, deformable_group * kernel_h * kernel_w * 2, H_out, W_out).
        mask (Tensor): Factors of the samples, shape
            (B, deformable_group * kernel_h * kernel_w, H_out, W_out).
        output (Tensor): Output, shape (B, C_out, H_out, W_out).
        columns (Tensor): mmcv's buffer, not used.
        kernel_h (int): Kernel height.
        kernel_w (int): Kernel width.
        stride_h (int): Vertical stride.
        stride_w (int): Horizontal stride.
        pad_h (int): Vertical padding.
        pad_w (int): Horizontal padding.
        dilation_h (int): Vertical dilation.
        dilation_w (int): Horizontal dilation.
        group (int): Groups of the convolution.
        deformable_group (int): Groups of channels that share offsets.
        with_bias (bool): Whether there is a bias.

    Raises:
        RuntimeError: If shapes do not match.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    points = deformable_group * kernel_h * kernel_w
    tensors = _operands(
        input,
        weight,
        _first_values(offset, 2 * points, output, 'offset'),
        _first_values(mask, points, output, 'mask'),
        bias if with_bias else None,
    )
    output.copy_(
        kernels().deform_conv2d(
            *tensors, *geometry, group, deformable_group, True
        )
    )


@torch.no_grad()
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of the modulated deformable convolution.

    Args:
        input (Tensor): As in :func:`modulated_deform_conv_forward`, like all
            that are not named here.
        weight (Tensor): The kernel.
        bias (Tensor): Shape (C_out,) or empty.
        ones (Tensor): mmcv's buffer, not used.
        offset (Tensor): Sampling offsets.
        mask (Tensor): Factors of the samples.
        columns (Tensor): mmcv's buffer, not used.
        grad_input (Tensor): Output, like ``input``.
        grad_weight (Tensor): Output, like ``weight``.
        grad_bias (Tensor): Output, like ``bias``.
        grad_offset (Tensor): Output, like ``offset``.
        grad_mask (Tensor): Output, like ``mask``.
        grad_output (Tensor): Shape (B, C_out, H_out, W_out).
        kernel_h (int): Kernel height.
        kernel_w (int): Kernel width.
        stride_h (int): Vertical stride.
        stride_w (int): Horizontal stride.
        pad_h (int): Vertical padding.
        pad_w (int): Horizontal padding.
        dilation_h (int): Vertical dilation.
        dilation_w (int): Horizontal dilation.
        group (int): Groups of the convolution.
        deformable_group (int): Groups of channels that share offsets.
        with_bias (bool): Whether there is a bias.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    points = deformable_group * kernel_h * kernel_w
    grads = _backward(
        grad_output,
        _operands(
            input,
            weight,
            _first_values(offset, 2 * points, grad_output, 'offset'),
            _first_values(mask, points, grad_output, 'mask'),
        ),
        geometry,
        (group, deformable_group, True),
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    for target, grad in ((grad_offset, grads[2]), (grad_mask, grads[3])):
        target.copy_(_among_zeros(grad, target))
    if with_bias:
        grad_bias.copy_(grads[4])


def _first_values(
    values: Tensor, channels: int, output: Tensor, name: str
) -> Tensor:
    """Return the values that mmcv reads from offsets or masks.

    mmcv does not look at their shape. Its kernel finds the value of channel
    c at (y, x) as number ``(c * H_out + y) * W_out + x`` of what a sample
    has, with the height and width of the output. Where they are larger than
    the output the values come from other places than those they were
    computed for: DyHead was published with this, for one level's offsets on
    the smaller map of the next.

    Args:
        values (Tensor): Shape (B, C', H', W'), ``channels * H_out * W_out``
            values a sample or more.
        channels (int): Channels that the convolution needs.
        output (Tensor): Of the convolution, shape (B, C_out, H_out, W_out).
        name (str): Of the argument, for the error.

    Returns:
        Tensor: Shape (B, channels, H_out, W_out).

    Raises:
        RuntimeError: For fewer values, where mmcv reads beyond the end.
    """
    shape = (channels, *output.shape[2:])
    flat = values.flatten(1)
    if flat.size(1) < math.prod(shape):
        raise RuntimeError(
            f'{name} of shape {tuple(values.shape)} is too small: each '
            f'sample needs as many values as {shape}'
        )
    return flat[:, : math.prod(shape)].unflatten(1, shape)


def _among_zeros(grad: Tensor, values: Tensor) -> Tensor:
    """Return a gradient of :func:`_first_values` as that of all values."""
    flat = grad.flatten(1)
    missing = math.prod(values.shape[1:]) - flat.size(1)
    return F.pad(flat, (0, missing)).view(values.shape)


def _operands(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> list[Tensor]:
    """Return the tensors in torchvision's order, none of them missing."""
    if mask is None:
        mask = input.new_zeros(input.size(0), 1)
    if bias is None:
        bias = input.new_zeros(weight.size(0))
    # torchvision would convert NaN to an arbitrary integer and read there. For
    # mmcv, NaN is neither inside nor outside, and its sample is zero.
    offset = upcast(offset).nan_to_num(_OUTSIDE, _OUTSIDE, -_OUTSIDE)
    return [upcast(t) for t in (input, weight, offset, mask, bias)]


def _backward(
    grad_output: Tensor,
    operands: list[Tensor],
    geometry: Sequence[int],
    options: Sequence[int],
) -> list[Tensor]:
    """Return the gradients of input, weight, offset, mask and bias.

    Args:
        grad_output (Tensor): Shape (B, C_out, H_out, W_out).
        operands (list[Tensor]): What :func:`_operands` returns.
        geometry (Sequence[int]): Stride, padding and dilation, each (y, x).
        options (Sequence[int]): Groups, offset groups, whether masked.
    """
    grads = list(
        kernels()._deform_conv2d_backward(
            upcast(grad_output), *operands, *geometry, *options
        )
    )
    input, weight, offset = operands[:3]
    grads[2] *= _inside(offset, input.shape, weight.shape, geometry)
    return grads


def _inside(
    offset: Tensor,
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """Return where sampling points lie between -1 and the input's size.

    At -1 the sample is 0 on one side and grows on the other. mmcv's
    derivative by the offset is 0 there, torchvision's that of the side that
    grows. It matters: with a padding of 1 and offsets that begin at zero, as
    in a new model, the border is sampled at -1.

    Returns:
        Tensor: Booleans like ``offset``; y and x of a point are equal.
    """
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    points = offset.unflatten(1, (-1, *weight_shape[2:], 2))
    inside = torch.ones_like(points[:, :, :, :, 0], dtype=torch.bool)
    for axis, size in enumerate(input_shape[2:]):
        kernel = torch.arange(weight_shape[2 + axis], device=offset.device)
        output = torch.arange(offset.size(2 + axis), device=offset.device)
        start = kernel[:, None] * dilation[axis] + (
            output * stride[axis] - padding[axis]
        )
        # (kH, 1, H_out, 1) and (1, kW, 1, W_out)
        start = start.unsqueeze(1 - axis).unsqueeze(3 - axis)
        place = start + points[:, :, :, :, axis]
        inside &= (place > -1) & (place < size)
    return inside.unsqueeze(4).expand_as(points).reshape(offset.shape)


def _check_input(input: Tensor, kernel_h: int, kernel_w: int) -> None:
    """Raise mmcv's error for inputs that torchvision would take."""
    if input.size(2) < kernel_h or input.size(3) < kernel_w:
        raise RuntimeError('input image is smaller than kernel')

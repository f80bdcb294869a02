"""``conv(norm(act(x)))`` in training, with only ``x`` kept.

The backward pass computes the activation again, in one new map, and all
further maps of that size in place. On CPUs, memory that is new to the process
is cleared by the system first, which takes longer than any of these
operations.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmtransxnet.kernels.batch_norm import LOCAL_NORMS
from mmtransxnet.kernels.channels_last import GELU
from mmtransxnet.kernels.depthwise import (
    DepthwiseConv2d,
    convolution_backward,
    merged_kernels,
    multi_scale,
    must_be_called,
    weight_gradients,
)
from mmtransxnet.kernels.formula import has_kernel
from mmtransxnet.kernels.settings import settings_of


def computes(x: Tensor, act: nn.Module, norm: Any, conv: nn.Module) -> bool:
    """Whether :func:`act_norm_conv` computes what these modules compute.

    Not so for other modules, in low precision, and where a hook or a
    replacement has to see that a module is called.
    """
    return (
        x.is_contiguous(memory_format=torch.channels_last)
        and type(act) is GELU
        and not must_be_called(act)
        and uses_batch(norm, x)
        and is_plain(conv)
        and not any(map(must_be_called, (conv, *_convs(conv))))
    )


def is_plain(conv: Any) -> bool:
    """Whether a module is one of the convolutions computed here."""
    if has_kernel(conv, multi_scale):
        return all(map(_has_residual, conv.proj))
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
    )


def act_norm_conv(
    x: Tensor, act: nn.Module, norm: Any, conv: nn.Module
) -> Tensor:
    """``conv(norm(act(x)))``, where :func:`computes`.

    Args:
        x: Feature map ``(B, C, H, W)``.
        act: The activation.
        norm: The batch norm.
        conv: A 1x1 convolution, or a module whose ``proj`` holds depthwise
            convolutions of consecutive channels, with residual.

    Returns:
        Feature map of the convolution's shape.
    """
    convs = _convs(conv)
    biases = [c.bias for c in convs if c.bias is not None]
    return _ActNormConv.apply(
        x,
        act,
        norm,
        _count_batch(norm),
        isinstance(conv, nn.Conv2d),
        norm.weight,
        norm.bias,
        torch.cat(biases) if biases else None,
        *(c.weight for c in convs),
    )


def norm_and_scale(x: Tensor, norm: Any, scale: Any) -> Tensor:
    """``scale(norm(x))`` as one norm, where :func:`uses_batch` of it.

    Args:
        x: Feature map ``(B, C, H, W)``.
        norm: The batch norm.
        scale: A :class:`~mmtransxnet.models.layers.LayerScale`.
    """
    momentum = _count_batch(norm)
    weight = scale.weight.flatten()
    return F.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight * weight,
        norm.bias * weight + scale.bias,
        True,
        momentum,
        norm.eps,
    )


def _count_batch(norm: Any) -> float:
    """Count a batch; return its weight in the running statistics."""
    count = norm.num_batches_tracked
    if count is not None:
        count.add_(1)
    if norm.momentum is not None:
        return norm.momentum
    # The average over all batches, as in torch's batch norms.
    return 0.0 if count is None else 1.0 / float(count)


def _convs(conv: Any) -> list[Any]:
    return [conv] if isinstance(conv, nn.Conv2d) else list(conv.proj)


def _has_residual(conv: Any) -> bool:
    return type(conv) is DepthwiseConv2d and conv.residual


def uses_batch(norm: Any, x: Tensor) -> bool:
    """Whether a kernel may compute a norm, in full precision.

    It uses, and updates, the statistics of this process alone.
    """
    return (
        settings_of(x).fast_depthwise
        and x.dtype.itemsize >= 4
        and not torch.is_autocast_enabled(x.device.type)
        and type(norm) in LOCAL_NORMS
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and not must_be_called(norm)
    )


def _kernel(weights: Sequence[Tensor], pointwise: bool) -> tuple[Tensor, int]:
    """The kernel of the convolution, and its groups."""
    if pointwise:
        return weights[0], 1
    merged = merged_kernels(weights, residual=True)
    return merged, len(merged)


class _ActNormConv(torch.autograd.Function):
    """``conv(norm(act(x)))``, see :func:`act_norm_conv`.

    With ``h = act(x)``, the norm computes ``n = weight * z + bias`` from
    ``z = (h - mean) * invstd``, where mean and invstd depend on h.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        act: GELU,
        norm: Any,
        momentum: float,
        pointwise: bool,
        norm_weight: Tensor,
        norm_bias: Tensor,
        bias: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        out = act(x)
        _, mean, invstd = torch.ops.aten.native_batch_norm.out(
            out,
            norm_weight,
            norm_bias,
            norm.running_mean,
            norm.running_var,
            True,
            momentum,
            norm.eps,
            out=out,
            save_mean=x.new_empty(0),
            save_invstd=x.new_empty(0),
        )
        ctx.pointwise, ctx.act = pointwise, act
        ctx.save_for_backward(
            x, norm_weight, norm_bias, mean, invstd, *weights
        )
        kernel, groups = _kernel(weights, pointwise)
        padding = kernel.size(-1) // 2
        return F.conv2d(out, kernel, bias, padding=padding, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, shift, mean, invstd, *weights = ctx.saved_tensors
        kernel, groups = _kernel(weights, ctx.pointwise)
        needs_bias, *needed = ctx.needs_input_grad[7:]
        grad = grad.contiguous(memory_format=torch.channels_last)
        z = ctx.act(x)
        _affine_(z, invstd, -mean * invstd)
        d_n = convolution_backward(z, kernel, grad, 0, groups)
        d_weight, d_shift = _norm_gradients(d_n, z)
        # The gradient of h, in place of that of n: the mean over all values
        # of a channel and the part along z do not change n.
        count = z.numel() / z.size(1)
        scale = weight * invstd
        d_n.addcmul_(z, _per_channel(-d_weight / count))
        _affine_(d_n, scale, -scale * d_shift / count)
        _gelu_backward_(d_n, x, ctx.act)
        _affine_(z, weight, shift)  # n
        return (
            d_n,
            None,
            None,
            None,
            None,
            d_weight,
            d_shift,
            grad.sum(dim=(0, 2, 3)) if needs_bias else None,
            *_kernel_gradients(z, weights, grad, needed, ctx.pointwise),
        )


def _kernel_gradients(
    x: Tensor,
    weights: Sequence[Tensor],
    grad: Tensor,
    needed: Sequence[bool],
    pointwise: bool,
) -> list[Tensor | None]:
    """Gradients of the weights for the input x; None if not needed."""
    if not pointwise:
        return weight_gradients(x, weights, grad, needed)
    if not needed[0]:
        return [None]
    return [convolution_backward(x, weights[0], grad, 1, groups=1)]


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _affine_(x: Tensor, scale: Tensor, shift: Tensor) -> None:
    """``scale * x + shift`` per channel, in place."""
    torch.addcmul(_per_channel(shift), x, _per_channel(scale), out=x)


def _norm_gradients(grad: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients ``(C,)`` of a norm's weight and bias.

    Args:
        grad: Gradient of the norm's output ``(B, C, H, W)``.
        z: The normalised input.
    """
    channels = z.size(1)
    _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
        grad,
        z,
        None,
        None,
        None,
        z.new_zeros(channels),
        z.new_ones(channels),
        True,
        0.0,
        [False, True, True],
    )
    return d_weight, d_bias


def _gelu_backward_(grad: Tensor, x: Tensor, act: GELU) -> None:
    """Multiply by the derivative of GELU at x, in place."""
    # In the order of memory, as the forward pass.
    grad, x = grad.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
    torch.ops.aten.gelu_backward.grad_input(
        grad, x, approximate=act.approximate, grad_input=grad
    )

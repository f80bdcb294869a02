"""Multi-scale deformable attention: Zhu et al., Deformable DETR, 2021."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import upcast


@torch.no_grad()
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sample every level at the given points and sum with the weights.

    Args:
        value (Tensor): Shape (B, sum of H*W, heads, C).
        value_spatial_shapes (Tensor): (H, W) of the levels, shape (L, 2).
        value_level_start_index (Tensor): First position of each level,
            shape (L,).
        sampling_locations (Tensor): (x, y), 0 to 1 from border to border,
            shape (B, Q, heads, L, P, 2).
        attention_weights (Tensor): Shape (B, Q, heads, L, P).
        im2col_step (int): Samples per step in mmcv; only checked here.

    Returns:
        Tensor: Shape (B, Q, heads * C), in ``value``'s type.

    Raises:
        RuntimeError: If the batch is not divisible by ``im2col_step``.
    """
    _check_step(value.size(0), im2col_step)
    output = _attend(
        upcast(value),
        value_spatial_shapes,
        value_level_start_index,
        upcast(sampling_locations),
        upcast(attention_weights),
    )
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward`.

    Args:
        value (Tensor): As in the forward function, like the following.
        value_spatial_shapes (Tensor): Shape (L, 2).
        value_level_start_index (Tensor): Shape (L,).
        sampling_locations (Tensor): Shape (B, Q, heads, L, P, 2).
        attention_weights (Tensor): Shape (B, Q, heads, L, P).
        grad_output (Tensor): Shape (B, Q, heads * C).
        grad_value (Tensor): Output, like ``value``.
        grad_sampling_loc (Tensor): Output, like ``sampling_locations``.
        grad_attn_weight (Tensor): Output, like ``attention_weights``.
        im2col_step (int): Only checked.

    Raises:
        RuntimeError: If the batch is not divisible by ``im2col_step``.
    """
    _check_step(value.size(0), im2col_step)
    inputs = [
        upcast(tensor.detach()).requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = _attend(
            inputs[0],
            value_spatial_shapes,
            value_level_start_index,
            *inputs[1:],
        )
    grads = torch.autograd.grad(output, inputs, grad_output.to(output.dtype))
    for target, grad in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True
    ):
        target.copy_(grad)


def _attend(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """Compute the attention with one ``grid_sample`` per level."""
    batch, _, heads, channels = value.shape
    queries = locations.size(1)
    # (B * heads, Q, L, P, 2), -1 to 1 from border to border
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    samples = []
    for level, ((h, w), start) in enumerate(
        zip(shapes.tolist(), starts.tolist(), strict=True)
    ):
        feature = value[:, start : start + h * w].permute(0, 2, 3, 1)
        samples.append(
            F.grid_sample(
                feature.reshape(batch * heads, channels, h, w),
                grid[:, :, level],
                align_corners=False,
            )
        )
    # (B * heads, C, Q, L, P)
    sampled = torch.stack(samples, dim=-2)
    output = (sampled * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(
        (-2, -1)
    )
    output = output.view(batch, heads * channels, queries)
    return output.transpose(1, 2).contiguous()


def _check_step(batch: int, im2col_step: int) -> None:
    """Raise an error where mmcv's kernel, which works in steps, would."""
    step = min(batch, im2col_step)
    if batch % step:
        raise RuntimeError(f'batch({batch}) must divide im2col_step({step})')

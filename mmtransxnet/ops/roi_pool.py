"""Features of regions by their largest pixels: ``roi_pool``.

Regions are rows ``(image, x1, y1, x2, y2)``, in pixels of the network's
input; ``spatial_scale`` takes them to the feature map.
"""

import torch
from torch import Tensor

from .common import kernels, plane_numbers, upcast


@torch.no_grad()
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the largest pixel of every bin of a region.

    Girshick, Fast R-CNN, ICCV 2015, section 2.1. A bin holds every pixel
    that it touches; corners are not rounded before, as torchvision does.

    Args:
        input (Tensor): Shape (B, C, H, W).
        rois (Tensor): Shape (N, 5).
        output (Tensor): Output, (N, C, pooled_height, pooled_width).
        argmax (Tensor): Output, like ``output`` in int32: the pixel's place
            y * W + x, or -1 if the bin is empty.
        pooled_height (int): Bins of a region in y.
        pooled_width (int): Bins of a region in x.
        spatial_scale (float): Scale of the feature map.
    """
    regions = upcast(rois)
    left, right = _pool_bins(
        regions[:, 1],
        regions[:, 3],
        spatial_scale,
        pooled_width,
        input.size(3),
    )
    top, bottom = _pool_bins(
        regions[:, 2],
        regions[:, 4],
        spatial_scale,
        pooled_height,
        input.size(2),
    )
    features = upcast(input)
    # Each bin is a region of its own with one bin, whose corners are whole
    # numbers and inclusive: torchvision rounds nothing then.
    image, x1, y1, x2, y2 = torch.broadcast_tensors(
        regions[:, 0, None, None],
        left[:, None],
        top[:, :, None],
        right[:, None] - 1,
        bottom[:, :, None] - 1,
    )
    bins = torch.stack([image, x1, y1, x2, y2], -1).view(-1, 5).to(features)
    results = kernels().roi_pool(features, bins, 1.0, 1, 1)
    empty = ((x2 < x1) | (y2 < y1))[:, None]
    for target, result, default in zip(
        (output, argmax), results, (0, -1), strict=True
    ):
        result = result.view(*image.shape, input.size(1)).permute(0, 3, 1, 2)
        target.copy_(result.masked_fill(empty, default))


def _pool_bins(
    low: Tensor, high: Tensor, scale: float, count: int, size: int
) -> tuple[Tensor, Tensor]:
    """Return first and last + 1 pixel of the bins on an axis, (N, count)."""
    start = low[:, None] * scale
    end = (high[:, None] + 1) * scale
    width = (end - start) / count
    index = torch.arange(count, device=low.device)
    # mmcv rounds in float32, whatever the type.
    first = (index * width + start).float().floor().clamp(0, size)
    last = ((index + 1) * width + start).float().ceil().clamp(0, size)
    return first, last.where(end > start, first)


@torch.no_grad()
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of the feature map.

    Args:
        grad_output (Tensor): (N, C, pooled_height, pooled_width).
        rois (Tensor): As in :func:`roi_pool_forward`, like the following.
        argmax (Tensor): What the forward function wrote.
        grad_input (Tensor): Output, shape (B, C, H, W).
        pooled_height (int): Bins of a region in y.
        pooled_width (int): Bins of a region in x.
        spatial_scale (float): Scale of the feature map.
    """
    grad = upcast(grad_output).where(argmax >= 0, 0)
    pixels = grad_input.size(2) * grad_input.size(3)
    plane = plane_numbers(rois[:, 0].long(), grad_input.shape)
    index = plane * pixels + argmax.clamp(min=0)
    result = grad.new_zeros(grad_input.numel())
    result.scatter_add_(0, index.flatten(), grad.flatten())
    grad_input.copy_(result.view(grad_input.shape))

"""Content-aware upsampling: ``carafe`` and ``carafe_naive``.

Wang et al., CARAFE, ICCV 2019, section 3.2: an output pixel is a weighted sum
of the k x k neighbours of the input pixel that it lies in, with weights of
its own. A loop over the neighbours takes as much memory as the output at a
time; an unfolded input would take k * k times the input.

Inside, maps are (B, G, C, H, s, W, s): G groups of C channels share weights,
and every input pixel covers s x s output pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import upcast


@torch.no_grad()
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled features.

    Args:
        features (Tensor): Shape (B, G * C, H, W).
        masks (Tensor): Weights of the neighbours, row by row, shape
            (B, G * kernel_size ** 2, s * H, s * W).
        output (Tensor): Output, shape (B, G * C, s * H, s * W).
        kernel_size (int): Height and width of the neighbourhood, odd.
        group_size (int): Number of groups G.
        scale_factor (int): Factor s of the upsampling.
    """
    padded = _padded(features, kernel_size, group_size)
    weights = _cells(masks, group_size, scale_factor)
    result = _cells(
        torch.zeros_like(output, dtype=padded.dtype), group_size, scale_factor
    )
    for tap in range(kernel_size**2):
        neighbours = _shifted(padded, tap, kernel_size)
        result.addcmul_(neighbours, weights[:, :, tap, None])
    output.copy_(result.reshape(output.shape))


@torch.no_grad()
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and weights.

    Args:
        top_grad (Tensor): Gradient of the output, with its shape.
        features (Tensor): As in :func:`carafe_naive_forward`, like all that
            are not named here.
        masks (Tensor): Weights of the neighbours.
        bottom_grad (Tensor): Output, like ``features``.
        mask_grad (Tensor): Output, like ``masks``.
        kernel_size (int): Height and width of the neighbourhood.
        group_size (int): Number of groups.
        scale_factor (int): Factor of the upsampling.
    """
    padded = _padded(features, kernel_size, group_size)
    weights = _cells(masks, group_size, scale_factor)
    grad = _cells(top_grad, group_size, scale_factor)
    grad_padded = torch.zeros_like(padded)
    grad_weights = torch.empty_like(weights)
    for tap in range(kernel_size**2):
        neighbours = _shifted(padded, tap, kernel_size)
        grad_weights[:, :, tap] = (grad * neighbours).sum(2)
        spread = grad * weights[:, :, tap, None]
        target = _shifted(grad_padded, tap, kernel_size)
        target += spread.sum((-3, -1), keepdim=True)
    inner = F.pad(grad_padded, [-(kernel_size // 2)] * 4)
    bottom_grad.copy_(inner.reshape(bottom_grad.shape))
    mask_grad.copy_(grad_weights.reshape(mask_grad.shape))


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled features.

    mmcv has a second kernel, for speed, that moves channels last in buffers.
    The values are those of :func:`carafe_naive_forward`.

    Args:
        features (Tensor): As in :func:`carafe_naive_forward`, like all that
            are not named here.
        masks (Tensor): Weights of the neighbours.
        rfeatures (Tensor): Output, what the backward function will be given
            in place of the features: a copy.
        routput (Tensor): mmcv's buffer, not used.
        rmasks (Tensor): mmcv's buffer, not used.
        output (Tensor): Output.
        kernel_size (int): Height and width of the neighbourhood.
        group_size (int): Number of groups.
        scale_factor (int): Factor of the upsampling.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(
        features, masks, output, kernel_size, group_size, scale_factor
    )


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and weights.

    Args:
        top_grad (Tensor): Gradient of the output, with its shape.
        rfeatures (Tensor): What :func:`carafe_forward` wrote.
        masks (Tensor): Weights of the neighbours.
        rtop_grad (Tensor): mmcv's buffer, not used.
        rbottom_grad_hs (Tensor): mmcv's buffer, not used.
        rbottom_grad (Tensor): mmcv's buffer, not used.
        rmask_grad (Tensor): mmcv's buffer, not used.
        bottom_grad (Tensor): Output, like the features.
        mask_grad (Tensor): Output, like ``masks``.
        kernel_size (int): Height and width of the neighbourhood.
        group_size (int): Number of groups.
        scale_factor (int): Factor of the upsampling.
    """
    carafe_naive_backward(
        top_grad,
        rfeatures,
        masks,
        bottom_grad,
        mask_grad,
        kernel_size,
        group_size,
        scale_factor,
    )


def _padded(features: Tensor, kernel_size: int, groups: int) -> Tensor:
    """Return the features, surrounded by zeros: (B, G, C, H', W')."""
    border = F.pad(upcast(features), [kernel_size // 2] * 4)
    return border.unflatten(1, (groups, -1))


def _cells(maps: Tensor, groups: int, scale: int) -> Tensor:
    """Return maps of the output's size as (B, G, C, H, s, W, s)."""
    cells = upcast(maps).unflatten(3, (-1, scale)).unflatten(2, (-1, scale))
    return cells.unflatten(1, (groups, -1))


def _shifted(padded: Tensor, tap: int, kernel_size: int) -> Tensor:
    """Return a view of each pixel's neighbour: (B, G, C, H, 1, W, 1)."""
    top, left = divmod(tap, kernel_size)
    height, width = (n - kernel_size + 1 for n in padded.shape[-2:])
    window = padded[..., top : top + height, left : left + width]
    return window[..., :, None, :, None]

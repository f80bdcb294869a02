"""Features of regions by bilinear sampling: ``roi_align``.

Regions are rows ``(image, x1, y1, x2, y2)``, in pixels of the network's
input; ``spatial_scale`` takes them to the feature map.
"""

import torch
from torch import Tensor

from .common import kernels, plane_numbers, upcast

_MAX = 0  # pool_mode; the other is 1, average


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write bilinear samples of each region, averaged or maximal per bin.

    He et al., Mask R-CNN, ICCV 2017, section 3.

    Regions whose corners are in the wrong order, as Sparse R-CNN predicts
    them at first, are read as mmcv's CUDA kernel reads them if ``aligned``
    is set: mirrored, or as empty where the number of samples follows from
    the size. Without ``aligned`` they are one pixel high or wide.

    Args:
        input (Tensor): Shape (B, C, H, W).
        rois (Tensor): Shape (N, 5).
        output (Tensor): Output, (N, C, aligned_height, aligned_width).
        argmax_y (Tensor): Output of pool mode 0, like ``output``: where the
            maximum was sampled.
        argmax_x (Tensor): Output of pool mode 0, like ``output``.
        aligned_height (int): Bins of a region in y.
        aligned_width (int): Bins of a region in x.
        spatial_scale (float): Scale of the feature map.
        sampling_ratio (int): Samples per bin and axis; 0 for as many as a
            bin has pixels, rounded up.
        pool_mode (int): 0 maximum, 1 average.
        aligned (bool): Whether regions are shifted by half a pixel, so that
            pixels are points in their centres.

    Raises:
        RuntimeError: On the CPU, if a corner is not finite. (On CUDA this
            would take a synchronisation, and mmcv does not check it either.)
    """
    if rois.size(0) == 0:
        return
    _check_corners(rois)
    size = (aligned_height, aligned_width)
    features = upcast(input)
    regions = _ordered(rois.to(features.dtype), sampling_ratio)
    if pool_mode == _MAX:
        results = _max_align(
            features, regions, size, spatial_scale, sampling_ratio, aligned
        )
        for target, result in zip(
            (output, argmax_y, argmax_x), results, strict=True
        ):
            target.copy_(result)
        return
    output.copy_(
        kernels().roi_align(
            features, regions, spatial_scale, *size, sampling_ratio, aligned
        )
    )


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the feature map.

    Args:
        grad_output (Tensor): (N, C, aligned_height, aligned_width).
        rois (Tensor): As in :func:`roi_align_forward`, like the following.
        argmax_y (Tensor): What the forward function wrote.
        argmax_x (Tensor): What the forward function wrote.
        grad_input (Tensor): Output, shape (B, C, H, W).
        aligned_height (int): Bins of a region in y.
        aligned_width (int): Bins of a region in x.
        spatial_scale (float): Scale of the feature map.
        sampling_ratio (int): Samples per bin and axis.
        pool_mode (int): 0 maximum, 1 average.
        aligned (bool): Whether regions are shifted by half a pixel.
    """
    if rois.size(0) == 0:
        return
    grad = upcast(grad_output)
    if pool_mode == _MAX:
        images = rois[:, 0].long()
        place = (argmax_y.to(grad.dtype), argmax_x.to(grad.dtype))
        grad_input.copy_(_max_scatter(grad, images, place, grad_input.shape))
        return
    grad_input.copy_(
        kernels()._roi_align_backward(
            grad,
            _ordered(rois.to(grad.dtype), sampling_ratio),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _check_corners(rois: Tensor) -> None:
    """Raise an error where a kernel would read outside the feature map."""
    if not rois.is_cuda and not bool(rois[:, 1:].isfinite().all()):
        raise RuntimeError('corners of ROIs in ROIAlign must be finite')


def _ordered(rois: Tensor, sampling_ratio: int) -> Tensor:
    """Return regions that are empty where the number of samples is negative.

    A bin of negative size gets no samples where their number follows from
    it. torchvision's CPU kernel would allocate a negative number of them.
    """
    if sampling_ratio > 0:
        return rois
    corners = torch.maximum(rois[:, 3:], rois[:, 1:3])
    return torch.cat([rois[:, :3], corners], 1)


def _max_align(
    features: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest sample of every bin, and its y and x.

    Loops over the samples of a bin, for all regions and bins at once.
    """
    starts = rois[:, 1:3] * scale - 0.5 * aligned
    extent = rois[:, 3:] * scale - 0.5 * aligned - starts
    if not aligned:
        extent = extent.clamp(min=1)
    # The following have shape (N, 2) with columns x, y.
    bins = extent / extent.new_tensor(size).flip(0)
    grid = torch.full_like(bins, ratio) if ratio > 0 else bins.ceil()
    channels_last = features.permute(0, 2, 3, 1)
    images = rois[:, 0].long()[:, None, None]
    # The start of mmcv's search. On the CPU this bounds the result, too.
    lowest = torch.finfo(torch.float32).min if rois.is_cuda else -10000
    shape = (len(rois), *size, features.size(1))
    best = features.new_full(shape, lowest)
    best_y, best_x = features.new_full((2, *shape), -1)
    steps_x, steps_y = (int(n) for n in grid.amax(0).tolist())
    for step_y in range(steps_y):
        y = _sample_places(starts, bins, grid, 1, size[0], step_y)
        for step_x in range(steps_x):
            x = _sample_places(starts, bins, grid, 0, size[1], step_x)
            value = _bilinear(channels_last, images, y, x)
            exists = (grid[:, 0] > step_x) & (grid[:, 1] > step_y)
            better = (value > best) & exists[:, None, None, None]
            best = value.where(better, best)
            best_y = y[:, :, None, None].where(better, best_y)
            best_x = x[:, None, :, None].where(better, best_x)
    best, best_y, best_x = (
        t.permute(0, 3, 1, 2) for t in (best, best_y, best_x)
    )
    return best, best_y, best_x


def _sample_places(
    starts: Tensor,
    bins: Tensor,
    grid: Tensor,
    axis: int,
    count: int,
    step: int,
) -> Tensor:
    """Return where sample ``step`` of each bin is on an axis, (N, count)."""
    index = torch.arange(count, device=bins.device)
    start, width = starts[:, axis, None], bins[:, axis, None]
    # Without samples the value is arbitrary, because it is not used.
    inner = (step + 0.5) * width / grid[:, axis, None].clamp(min=1)
    return start + index * width + inner


def _neighbours(
    place: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pixels below and above a place and their weights.

    Places up to one pixel outside belong to the border, others have no weight.
    """
    inside = (place >= -1) & (place <= size)
    place = place.clamp(0, size - 1)
    low = place.long()
    high = (low + 1).clamp(max=size - 1)
    weight = place - low
    return low, high, (1 - weight) * inside, weight * inside


def _bilinear(
    features: Tensor, images: Tensor, y: Tensor, x: Tensor
) -> Tensor:
    """Sample channels-last features at (N, H) and (N, W): (N, H, W, C)."""
    y_low, y_high, y_weight, y_weight_high = (
        t[:, :, None] for t in _neighbours(y, features.size(1))
    )
    x_low, x_high, x_weight, x_weight_high = (
        t[:, None] for t in _neighbours(x, features.size(2))
    )
    return (
        (y_weight * x_weight)[..., None] * features[images, y_low, x_low]
        + (y_weight * x_weight_high)[..., None]
        * features[images, y_low, x_high]
        + (y_weight_high * x_weight)[..., None]
        * features[images, y_high, x_low]
        + (y_weight_high * x_weight_high)[..., None]
        * features[images, y_high, x_high]
    )


def _max_scatter(
    grad: Tensor,
    images: Tensor,
    place: tuple[Tensor, Tensor],
    shape: torch.Size,
) -> Tensor:
    """Add gradients (N, C, h, w) to the pixels that the samples came from."""
    y, x = place
    result = grad.new_zeros(shape).flatten()
    plane = plane_numbers(images, shape)
    grad = grad.where(y != -1, 0)  # a bin without samples
    y_low, y_high, y_weight, y_weight_high = _neighbours(y, shape[2])
    x_low, x_high, x_weight, x_weight_high = _neighbours(x, shape[3])
    for row, row_weight in ((y_low, y_weight), (y_high, y_weight_high)):
        for column, weight in ((x_low, x_weight), (x_high, x_weight_high)):
            index = (plane * shape[2] + row) * shape[3] + column
            value = grad * row_weight * weight
            result.scatter_add_(0, index.flatten(), value.flatten())
    return result.view(shape)

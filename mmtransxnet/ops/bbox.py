"""Overlaps of boxes: ``bbox_overlaps``."""

import torch
from torch import Tensor

from .common import upcast


@torch.no_grad()
def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Write the overlaps of two sets of boxes.

    Args:
        bboxes1 (Tensor): ``(x1, y1, x2, y2)`` in pixels, shape (M, 4).
        bboxes2 (Tensor): Shape (N, 4).
        ious (Tensor): Output, shape (M, N), or (M,) if aligned.
        mode (int): 0 intersection over union, 1 over the first box.
        aligned (bool): Whether box i is compared with box i only.
        offset (int): 0 or 1, added to widths and heights.
    """
    first, second = upcast(bboxes1), upcast(bboxes2)
    if not aligned:
        first = first[:, None]
    size = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(
        first[..., :2], second[..., :2]
    )
    inter = _area((size + offset).clamp(min=0))
    base = _area(first[..., 2:] - first[..., :2] + offset)
    if mode == 0:
        area = _area(second[..., 2:] - second[..., :2] + offset)
        base = base + area - inter
    if base.is_cuda:  # mmcv's two kernels differ in this
        base = base.clamp(min=offset)
    ious.copy_(inter / base)


def _area(size: Tensor) -> Tensor:
    """Multiply width and height, shape (..., 2)."""
    return size[..., 0] * size[..., 1]

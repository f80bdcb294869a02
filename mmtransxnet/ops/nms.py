"""Non-maximum suppression: ``nms``, ``softnms`` and ``nms_match``.

Boxes are ``(x1, y1, x2, y2)`` in pixels. ``offset`` (0 or 1) is added to
widths and heights, so that ``x2 - x1 + offset`` is the width.
"""

import numpy as np
import torch
from torch import Tensor

from .common import kernels, upcast


@torch.no_grad()
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Keep the best of every group of overlapping boxes.

    Args:
        boxes (Tensor): Shape (N, 4).
        scores (Tensor): Shape (N,).
        iou_threshold (float): Boxes with an IoU above it are suppressed.
        offset (int): 0 or 1, see the module.

    Returns:
        Tensor: Indices of the kept boxes, int64, by descending score.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    boxes = upcast(boxes)
    if offset:
        # A width of x2 - x1 + 1 is that of a box that ends one pixel later.
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in the boxes' precision, torchvision in double: an IoU of
    # exactly 0.6 is above 0.6 when only one of them has been rounded.
    threshold = float(torch.tensor(iou_threshold, dtype=boxes.dtype))
    if scores.dtype == boxes.dtype:
        return kernels().nms(boxes, scores, threshold)
    # torchvision wants one type for both; the scores' order is all it uses.
    order = scores.argsort(descending=True, stable=True)
    rank = torch.arange(len(order), 0, -1).to(boxes)
    return order[kernels().nms(boxes[order], rank, threshold)]


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes instead of dropping them.

    Bodla et al., Soft-NMS, ICCV 2017. Runs on the CPU, as in mmcv.

    Args:
        boxes (Tensor): Shape (N, 4).
        scores (Tensor): Shape (N,).
        dets (Tensor): Output, shape (N, 5): boxes and new scores of those
            that are left, in the order of selection. Other rows are not
            written.
        iou_threshold (float): Used by methods 0 and 1.
        sigma (float): Used by method 2.
        min_score (float): Boxes whose score falls below are dropped.
        method (int): 0 naive (score 0), 1 linear (1 - IoU), 2 gaussian.
        offset (int): 0 or 1, see the module.

    Returns:
        Tensor: Indices of the boxes in ``dets``, int64.
    """
    boxes = upcast(boxes)
    data = torch.cat([boxes.t(), scores.to(boxes)[None]]).numpy()
    count = data.shape[1]
    index = np.arange(count)
    current = 0
    while current < count:
        # mmcv's loop reorders boxes. Among equal scores the first in that
        # order is taken, so the order has to be the same.
        best = current + _first_largest(data[4, current:count])
        data[:, [current, best]] = data[:, [best, current]]
        index[[current, best]] = index[[best, current]]

        remaining = data[:, current + 1 : count]
        iou = _iou(data[:4, current], remaining[:4], offset)
        remaining[4] *= _decay(iou, iou_threshold, sigma, method)
        current += 1
        keep = ~(remaining[4] < min_score)
        if not keep.all():
            source = current + _fill_holes(keep)
            count = current + len(source)
            data[:, current:count] = data[:, source]
            index[current:count] = index[source]
    dets[:count] = torch.from_numpy(data[:, :count].T).to(dets)
    return torch.from_numpy(index[:count])


def _first_largest(scores: np.ndarray) -> int:
    """Return what a search from the first by ``>`` finds.

    Only the gaussian method with several empty boxes makes scores NaN: one in
    front stays there, others are never larger.
    """
    best = int(scores.argmax())  # numpy takes NaN for the largest
    return (
        int(np.nanargmax(scores)) if best and np.isnan(scores[best]) else best
    )


def _decay(
    iou: np.ndarray, threshold: float, sigma: float, method: int
) -> np.ndarray:
    """Return the factors of soft-NMS for the given overlaps."""
    if method == 2:
        # Rounded once, as C's exp is; numpy's of float32 is less accurate,
        # enough to change which of two nearly equal scores is next.
        exponent = -(iou * iou) / sigma
        return np.exp(exponent, dtype=np.float64).astype(iou.dtype)
    factor = 1 - iou if method == 1 else np.zeros_like(iou)
    return np.where(iou >= threshold, factor, np.ones_like(iou))


def _fill_holes(keep: np.ndarray) -> np.ndarray:
    """Order the kept positions as if each hole took the last kept one."""
    kept = np.flatnonzero(keep)
    order = np.arange(len(kept))
    holes = np.flatnonzero(~keep[: len(kept)])
    order[holes] = kept[kept >= len(kept)][::-1]
    return order


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of a box, shape (4,), with others, shape (4, N)."""
    box = box[:, None]
    size = np.minimum(box[2:], boxes[2:]) - np.maximum(box[:2], boxes[:2])
    size = np.maximum(size + offset, 0)
    inter = size[0] * size[1]
    with np.errstate(divide='ignore', invalid='ignore'):  # empty boxes
        return inter / (_area(box, offset) + _area(boxes, offset) - inter)


def _area(boxes: np.ndarray, offset: int) -> np.ndarray:
    """Areas of boxes, shape (4, N)."""
    return (boxes[2] - boxes[0] + offset) * (boxes[3] - boxes[1] + offset)


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every kept box with the boxes that it suppresses.

    Args:
        dets (Tensor): Boxes and scores on the CPU, shape (N, 5).
        iou_threshold (float): Boxes with an IoU at or above it are
            suppressed.

    Returns:
        list[list[int]]: Indices, one list per kept box, by descending score.
    """
    data = upcast(dets).numpy().T
    remaining = dets[:, 4].argsort(descending=True, stable=True).numpy()
    groups = []
    while len(remaining):
        iou = _iou(data[:4, remaining[0]], data[:4, remaining[1:]], offset=0)
        same = np.concatenate([[True], iou >= iou_threshold])
        groups.append(remaining[same].tolist())
        remaining = remaining[~same]
    return groups

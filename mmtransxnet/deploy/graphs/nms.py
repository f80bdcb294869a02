"""Non-maximum suppression and ranking with outputs of fixed size.

Rows of a fixed number of candidates that are none have the score ``ABSENT``;
all scores of candidates are 0 or above. Among equal scores the row with the
lower index is first, as in mmcv, and as ONNX demands of TopK.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransxnet.deploy.graphs.boxes import rows
from mmtransxnet.ops.nms import nms
from mmtransxnet.utils.errors import UserError

ABSENT = -1.0
_THRESHOLD = -0.5  # between ABSENT and the lowest score


@torch.library.custom_op('mmtransxnet_deploy::top_scores', mutates_args=())
def top_scores(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each sample, in descending order.

    ``Tensor.topk`` orders equal scores arbitrarily.

    Args:
        scores: ``(B, N)``.
        num: Their number K, at most N.

    Returns:
        Scores and indices ``(B, K)``.
    """
    values, index = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :num].contiguous(), index[:, :num].contiguous()


@top_scores.register_fake
def _(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    shape = (scores.size(0), num)
    return scores.new_empty(shape), scores.new_empty(shape, dtype=torch.long)


@torch.library.custom_op('mmtransxnet_deploy::nms', mutates_args=())
def kept_boxes(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int
) -> Tensor:
    """Which boxes of each sample non-maximum suppression keeps.

    Args:
        boxes: Corners ``(B, N, 4)``.
        scores: ``(B, N)``.
        iou_threshold: Boxes with an IoU above it are suppressed.
        max_num: At most so many of a sample are kept, the best.

    Returns:
        Boolean tensor ``(B, N)``.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(len(scores)):
        index = (scores[i] > _THRESHOLD).nonzero().squeeze(1)
        best = nms(boxes[i, index], scores[i, index], iou_threshold, 0)
        keep[i, index[best[:max_num]]] = True
    return keep


@kept_boxes.register_fake
def _(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int
) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


def translations(opset: int) -> dict[Callable, Callable]:
    """The operators' forms in ONNX, for ``torch.onnx.export``."""
    import onnxscript

    op = onnxscript.values.Opset('', opset)

    def top_scores_onnx(scores: Any, num: int) -> Any:
        k = op.Constant(value_ints=[num])
        return op.TopK(scores, k, axis=1, largest=1, sorted=1)

    def kept_boxes_onnx(
        boxes: Any, scores: Any, iou_threshold: float, max_num: int
    ) -> Any:
        # OpenVINO also suppresses boxes whose IoU equals the threshold. The
        # next number as threshold gives the same boxes everywhere, but for
        # an IoU of exactly that number.
        above = np.nextafter(np.float32(iou_threshold), np.float32(2))
        # One class: which boxes may overlap is in their offsets.
        selected = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[max_num]),
            op.Constant(value_floats=[float(above)]),
            op.Constant(value_floats=[_THRESHOLD]),
        )
        # Rows (sample, class, box), in an order that ONNX leaves open.
        index = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
        count = op.Shape(selected, start=0, end=1)
        ones = op.Expand(op.Constant(value_floats=[1.0]), count)
        kept = op.ScatterND(op.Mul(scores, 0.0), index, ones)
        return op.Greater(kept, op.Constant(value_float=0.5))

    operators = torch.ops.mmtransxnet_deploy
    return {
        operators.top_scores.default: top_scores_onnx,
        operators.nms.default: kept_boxes_onnx,
    }


class Suppression:
    """``mmcv.ops.batched_nms`` and the selection of the best.

    Args:
        config: ``test_cfg`` of a head, with ``nms`` and ``max_per_img``.
        name: What it is called in messages.

    Raises:
        UserError: It asks for another kind of suppression, or for an unlimited
            number of results.
    """

    def __init__(self, config: Any, name: str) -> None:
        nms_config = dict(config.nms)
        kind = nms_config.pop('type', 'nms')
        self.iou_threshold = float(
            nms_config.pop('iou_threshold', None)
            or nms_config.pop('iou_thr', 0)
        )
        self.class_agnostic = bool(nms_config.pop('class_agnostic', False))
        # Splitting by class saves memory and changes no result.
        nms_config.pop('split_thr', None)
        if kind != 'nms' or nms_config:
            raise UserError(
                f'{name}.nms cannot be exported: {dict(config.nms)}; expected '
                "dict(type='nms', iou_threshold=...)"
            )
        self.max_num = int(config.max_per_img)
        if self.max_num < 1:
            raise UserError(
                f'{name}.max_per_img is {self.max_num}; for the export it '
                'must be a number of boxes above 0'
            )

    def __call__(
        self, boxes: Tensor, scores: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rank the boxes that are kept.

        Args:
            boxes: Corners ``(B, N, 4)``, not negative.
            scores: ``(B, N)``.
            labels: ``(B, N)``; boxes with different labels do not suppress
                each other.

        Returns:
            Scores and indices ``(B, K)``, K = ``max_num``. Rows without a
            box have the score ``ABSENT`` and the index 0.
        """
        moved = boxes
        if not self.class_agnostic:
            # The arithmetic of mmcv: its rounding decides close cases.
            present = (scores > _THRESHOLD)[..., None]
            largest = torch.where(present, boxes, 0).amax(dim=(1, 2))
            offsets = labels.to(boxes) * (largest + 1)[:, None]
            moved = boxes + offsets[..., None]
        keep = kept_boxes(moved, scores, self.iou_threshold, self.max_num)
        return best_candidates(torch.where(keep, scores, ABSENT), self.max_num)


def best_candidates(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """:func:`top_scores` of any number of candidates, also of fewer.

    Args:
        scores: ``(B, N)``.
        num: Number of rows K.

    Returns:
        Scores and indices ``(B, K)``. Rows without a candidate have the score
        ``ABSENT`` and the index 0.
    """
    scores, index = top_scores(F.pad(scores, (0, num), value=ABSENT), num)
    return scores, torch.where(scores > _THRESHOLD, index, 0)


def present(scores: Tensor) -> Tensor:
    """Which rows are candidates, boolean of the same shape."""
    return scores > _THRESHOLD


def detections(
    boxes: Tensor, scores: Tensor, labels: Tensor, suppression: Suppression
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Suppress, rank, count and fill with zeros.

    Args:
        boxes: Corners ``(B, N, 4)``.
        scores: ``(B, N)``.
        labels: ``(B, N)``.
        suppression: What decides.

    Returns:
        Count ``(B,)``, boxes ``(B, K, 4)``, scores and labels ``(B, K)``.
    """
    best, index = suppression(boxes, scores, labels)
    valid = present(best)
    return (
        valid.long().sum(dim=1),
        torch.where(valid[..., None], rows(boxes, index), 0),
        torch.where(valid, best, 0),
        torch.where(valid, labels.gather(1, index), 0),
    )

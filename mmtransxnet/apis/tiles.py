"""Predictions of overlapping windows, merged to those of the picture."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torchvision.ops import batched_nms

from mmtransxnet.apis.frames import Frame, Part
from mmtransxnet.apis.results import patches_of
from mmtransxnet.deploy.runtime import Patch
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.windows import windows

Window = tuple[int, int, int, int]

_OVERLAP = 0.25
"""Share of a window that it has in common with the next."""

_COVERED = 0.7
"""Share of a cut object inside another one that shows it whole."""

_DEFAULT_IOU = 0.5
"""For detectors without a suppression of their own."""


def check_tile(size: int | None, task: str) -> None:
    """Check the size of windows.

    Raises:
        UserError: It is too small, or the task has no tiles.
    """
    if size is None:
        return
    if task == 'classification':
        raise UserError(
            '--tile: a classifier has one answer for a picture, which windows '
            'cannot be merged to; leave --tile out'
        )
    if size < 32:
        raise UserError(f'--tile {size}: expected at least 32 pixels')


def parts_of(frame: Frame, size: int | None) -> Iterator[Part]:
    """The windows of a picture, from the top to the bottom.

    Args:
        frame: The picture.
        size: Side of the windows in pixels, which overlap by a quarter; None
            for one window.
    """
    if frame.error is not None or frame.size is None:
        yield Part(frame, error=frame.error)
        return
    height, width = frame.size
    places: Sequence[Window] = [(0, 0, width, height)]
    if size is not None:
        places = windows(height, width, size, _OVERLAP)
    places = sorted(places, key=lambda place: (place[1], place[0]))
    for index, place in enumerate(places, 1):
        yield Part(frame, place, index == len(places))


class Merger(Protocol):
    """Collects the predictions of the windows of a picture."""

    def add(self, window: Window, prediction: Any) -> None:
        """Take the prediction of a window."""

    def merged(self) -> Any:
        """The prediction of the picture."""


def merge(
    parts: Iterable[Part], merger_of: Callable[[Frame], Merger]
) -> Iterator[tuple[Frame, Any]]:
    """Yield each picture with its prediction, or with the exception.

    The prediction of a picture with one window stays as it is.
    """
    merger: Merger | None = None
    error: Exception | None = None
    for part in parts:
        error = error or part.error
        if part.last and merger is None:
            yield part.frame, error or part.prediction
            error = None
            continue
        if merger is None:
            merger = merger_of(part.frame)
        if error is None:
            merger.add(part.window, part.prediction)
        part.prediction = None
        if part.last:
            yield part.frame, error or merger.merged()
            merger = error = None


class ObjectMerger:
    """Merges detections: a class-wise non-maximum suppression.

    Before it, objects that an edge of a window cuts are dropped where another
    window has the whole object. Masks stay in their rectangles, as
    ``patches``: those of a large picture would not fit into memory.

    Args:
        size: Height and width of the picture.
        iou: Threshold of the suppression.
    """

    def __init__(self, size: tuple[int, int], iou: float) -> None:
        self._size, self._iou = size, iou
        self._windows: list[Window] = []
        self._found: list[InstanceData] = []
        self._sample: Any = None

    def add(self, window: Window, prediction: Any) -> None:
        """Take the objects of a window."""
        found = prediction.pred_instances
        x, y = window[:2]
        shift = found.bboxes.new_tensor([x, y, x, y])
        moved = InstanceData(
            bboxes=found.bboxes + shift,
            scores=found.scores,
            labels=found.labels,
        )
        patches = patches_of(found)
        if patches is not None:
            moved.patches = [
                Patch(patch.pixels, patch.top + y, patch.left + x)
                for patch in patches
            ]
        self._windows.append(window)
        self._found.append(moved)
        self._sample = prediction

    def merged(self) -> Any:
        """The library's data sample with the objects of the picture."""
        whole = InstanceData.cat(
            [found[~self._repeated(i)] for i, found in enumerate(self._found)]
        )
        kept = batched_nms(
            whole.bboxes.float(),
            whole.scores.float(),
            whole.labels,
            self._iou,
        )
        sample = type(self._sample)(metainfo={'ori_shape': self._size})
        sample.pred_instances = whole[kept]
        return sample

    def _repeated(self, index: int) -> Tensor:
        """Which objects of a window are cut, and whole in another one."""
        found = self._found[index]
        cut = self._cut(index)
        repeated = torch.zeros_like(cut)
        for other, window in enumerate(self._windows):
            if other == index or not _overlap(window, self._windows[index]):
                continue
            repeated |= cut & _shown_by(found, self._found[other])
        return repeated

    def _cut(self, index: int) -> Tensor:
        """Which objects touch an edge that is not the picture's."""
        x, y, width, height = self._windows[index]
        edges = (x, y, x + width, y + height)
        limits = (0, 0, self._size[1], self._size[0])
        boxes = self._found[index].bboxes
        # Detectors place the edge of a cut object a little off.
        near = max(2.0, 0.01 * max(width, height))
        cut = boxes.new_zeros(len(boxes), dtype=torch.bool)
        for side in range(4):
            if edges[side] != limits[side]:
                cut |= (boxes[:, side] - edges[side]).abs() <= near
        return cut


def _overlap(one: Window, two: Window) -> bool:
    return all(
        one[i] < two[i] + two[i + 2] and two[i] < one[i] + one[i + 2]
        for i in (0, 1)
    )


def _shown_by(found: InstanceData, others: InstanceData) -> Tensor:
    """Which objects lie within a larger one of the same class."""
    if not len(found) or not len(others):
        return found.bboxes.new_zeros(len(found), dtype=torch.bool)
    first, second = found.bboxes[:, None], others.bboxes[None]
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area, other_area = _areas(first), _areas(second)
    within = (common >= _COVERED * area) & (other_area > area)
    # One that the detector hardly believes in does not count.
    likely = others.scores[None] >= 0.5 * found.scores[:, None]
    same = found.labels[:, None] == others.labels[None]
    return (within & likely & same).any(1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def suppression_threshold(model: Any) -> float:
    """IoU threshold of the detector's own suppression."""
    test_cfg = getattr(model, 'test_cfg', None) or {}
    settings = test_cfg.get('rcnn') or test_cfg
    nms = settings.get('nms') or {}
    return float(nms.get('iou_threshold', _DEFAULT_IOU))


class LabelMerger:
    """Blends logits; the weight of a window falls towards its edges.

    Only the rows that further windows overlap are kept as logits.

    Args:
        size: Height and width of the picture.
        threshold: Of the probability, of a model with one output.
    """

    def __init__(self, size: tuple[int, int], threshold: float) -> None:
        self._size, self._threshold = size, threshold
        self._top = 0
        self._sums = self._weights = torch.empty(0)
        self._labels = torch.zeros(1, *size, dtype=torch.int64)
        self._sample: Any = None

    def add(self, window: Window, prediction: Any) -> None:
        """Take the logits of a window; windows come from top to bottom."""
        x, y, width, height = window
        logits = prediction.seg_logits.data
        if self._sample is None:
            rows = height, self._size[1]
            self._sums = logits.new_zeros(len(logits), *rows)
            self._weights = logits.new_zeros(rows)
        self._sample = prediction
        self._decide(y)
        weight = _ramp(height, logits)[:, None] * _ramp(width, logits)
        self._sums[:, :, x : x + width] += logits * weight
        self._weights[:, x : x + width] += weight

    def _decide(self, end: int) -> None:
        """Write the labels of the rows above ``end`` and forget them."""
        ready = end - self._top
        if not ready:
            return
        values = self._sums[:, :ready] / self._weights[:ready]
        if len(values) > 1:
            labels = values.argmax(0)
        else:
            labels = values[0] > self._threshold
        self._labels[0, self._top : end] = labels.cpu()
        for kept in (self._sums, self._weights):
            rest = kept[..., ready:, :].clone()
            kept.zero_()
            kept[..., : rest.shape[-2], :] = rest
        self._top = end

    def merged(self) -> Any:
        """The library's data sample with the label map of the picture."""
        self._decide(self._size[0])
        sample = type(self._sample)(metainfo={'ori_shape': self._size})
        sample.pred_sem_seg = PixelData(data=self._labels)
        return sample


def _ramp(size: int, like: Tensor) -> Tensor:
    """Weights that rise from the edges to the middle."""
    index = torch.arange(size, dtype=like.dtype, device=like.device)
    return torch.minimum(index + 1, size - index)

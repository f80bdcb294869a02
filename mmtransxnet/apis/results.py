"""Results of inference, as the libraries' data samples and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmtransxnet.deploy import runtime


@dataclass(frozen=True)
class ModelInfo:
    """What is needed to write the results of a model.

    Attributes:
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        classes: Names.
        palette: Red, green, blue of each class.
        score_thr: Minimum score of objects in the data; None for all.
    """

    task: str
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    score_thr: float | None = None


def model_info(
    task: str,
    meta: Mapping[str, Any],
    num_classes: int,
    score_thr: float | None,
) -> ModelInfo:
    """Describe a model; classes without names are numbered.

    Args:
        task: As :class:`ModelInfo`.
        meta: ``classes`` and ``palette``, if known.
        num_classes: Number of classes.
        score_thr: As :class:`ModelInfo`.
    """
    names = list(meta.get('classes') or map(str, range(num_classes)))
    palette = meta.get('palette')
    if palette is None or isinstance(palette, str) or not len(palette):
        palette = runtime.colours(len(names))
    colours = [[int(value) for value in colour] for colour in palette]
    return ModelInfo(task, names, colours, score_thr)


@dataclass(frozen=True)
class Result:
    """The result for a picture or a frame.

    Attributes:
        source: Path of the file, or number of the camera.
        frame: Number of the frame from 0, None for a picture.
        prediction: The library's data sample, None if it failed.
        drawing: The file with the drawing, None if not requested.
        error: Why it failed, if it did.
        size: Height and width of the picture, None if it failed.
        label_map: The file with the label map, relative to the folder of the
            JSON; None if no JSON is written or it is no segmentation.
        info: Task, classes and palette of the model.
    """

    source: Path | int
    frame: int | None = None
    prediction: Any = None
    drawing: Path | None = None
    error: str | None = None
    size: tuple[int, int] | None = None
    label_map: Path | None = None
    info: ModelInfo | None = field(default=None, repr=False)

    def to_dict(self, image_id: int = 0) -> dict[str, Any]:
        """The result as plain data, which JSON can hold.

        Args:
            image_id: The number of the picture in the data.

        Returns:
            ``id``, ``file_name``, ``width``, ``height``, of a frame
            ``frame``, of a label map that was written ``label_map``, and
            ``results``:

            - classification: one entry with ``category_id``, ``name``,
                ``score`` and the ``scores`` of all classes;
            - detection: an entry for each object with ``category_id``,
                ``name``, ``bbox`` (x, y, width, height in pixels), ``score``
                and, of a model with masks, ``segmentation`` (COCO's
                compressed run-length code);
            - segmentation: an entry for each class that occurs with
                ``category_id``, ``name``, ``pixels`` (their number) and
                ``share`` (of the picture).

            Of a failed picture ``file_name`` and ``error``, of a frame
            ``frame``.
        """
        entry: dict[str, Any] = {'file_name': str(self.source)}
        if self.frame is not None:
            entry['frame'] = self.frame
        if self.error is not None:
            return {**entry, 'error': self.error}
        assert self.size is not None
        height, width = self.size
        entry = {'id': image_id, **entry, 'width': width, 'height': height}
        if self.label_map is not None:
            entry['label_map'] = self.label_map.as_posix()
        entry['results'] = self._entries(image_id)
        return entry

    def label_image(self) -> Image.Image:
        """The label map of a segmentation as an image with the palette."""
        assert self.info is not None
        return runtime.palette_image(self._labels(), self.info.palette)

    def _labels(self) -> np.ndarray:
        """Classes of the pixels ``(H, W)``."""
        assert self.info is not None
        labels = self.prediction.pred_sem_seg.data[0].cpu().numpy()
        small = len(self.info.classes) <= 256
        return labels.astype(np.uint8 if small else np.int64)

    def _entries(self, image_id: int) -> list[dict[str, Any]]:
        info, size = self.info, self.size
        assert info is not None
        assert size is not None
        if info.task == 'segmentation':
            return runtime.label_map_json(
                self._labels(), info.classes, image_id
            )
        result: runtime.Result
        if info.task == 'classification':
            scores = self.prediction.pred_score.float().cpu().numpy()
            result = runtime.Classification(size, scores)
        else:
            result = _detections(self.prediction, size, info.score_thr)
        return runtime.as_json(result, info.classes, image_id)


def _detections(
    sample: Any, size: tuple[int, int], score_thr: float | None
) -> runtime.Detections:
    found = sample.pred_instances
    if score_thr is not None:
        found = found[found.scores >= score_thr]
    return runtime.Detections(
        size,
        found.bboxes.float().cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.labels.cpu().numpy(),
        patches=patches_of(found),
    )


def patches_of(instances: Any) -> Sequence[runtime.Patch] | None:
    """Masks of objects, each within its rectangle; None without masks."""
    if 'patches' in instances:
        return instances.patches
    if 'masks' not in instances:
        return None
    masks = instances.masks
    if isinstance(masks, torch.Tensor):
        masks = masks.cpu().numpy()
    return _Patches(masks)


class _Patches(Sequence[runtime.Patch]):
    """Masks ``(N, H, W)``, cut to their rectangles when they are read."""

    def __init__(self, masks: np.ndarray) -> None:
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: Any) -> Any:
        mask = self._masks[index]
        (rows,) = np.nonzero(mask.any(1))
        if not len(rows):
            return runtime.Patch(np.zeros((0, 0), bool), 0, 0)
        top, bottom = rows[0], rows[-1] + 1
        (columns,) = np.nonzero(mask[top:bottom].any(0))
        left, right = columns[0], columns[-1] + 1
        pixels = mask[top:bottom, left:right].astype(bool)
        return runtime.Patch(pixels, int(top), int(left))


def check_finite(prediction: Any, task: str) -> None:
    """Check the scores and boxes of a prediction.

    Raises:
        ValueError: Some are not finite numbers.
    """
    if task == 'classification':
        values = [prediction.pred_score]
    elif task == 'detection':
        found = prediction.pred_instances
        values = [found.scores, found.bboxes]
    else:
        # The sum of a large map is faster than a test of each value.
        values = [prediction.seg_logits.data.sum()]
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise ValueError(
            'the model returned scores that are not finite numbers: its '
            'weights or the picture are extreme'
        )

"""The study of a detector or of instance segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from mmtransxnet.report import detection
from mmtransxnet.report.classification import ratio
from mmtransxnet.report.detection import SCORE, Scene
from mmtransxnet.report.drawing import draw_boxes, open_picture
from mmtransxnet.report.findings import (
    Example,
    Findings,
    drawn_curves,
    part_of_confusion,
)
from mmtransxnet.report.study import Study
from mmtransxnet.utils.errors import UserError


class DetectorStudy(Study):
    """Compares detections with the annotations of the data set."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self._dataset = dataset
        self._places = {
            dataset.get_data_info(place).get('img_id'): place
            for place in range(len(dataset))
        }
        self._scenes: list[Scene] = []

    def add(self, batch: dict[str, Any], samples: Sequence[Any]) -> None:
        """Take the detections of a batch."""
        for sample in samples:
            info = self._info(sample)
            truth = info.get('instances', [])
            found = _predictions(sample)
            scene = compare(found, truth, sample.ori_shape[:2])
            self._scenes.append(scene)
            judged = detection.judge(scene, SCORE)
            kept = len(judged.kinds)
            hits = judged.kinds.count(detection.HIT)
            wrong = kept - hits - judged.kinds.count(detection.IGNORED)
            lost = int((~judged.found & ~scene.ignored).sum())
            path = info.get('img_path')
            # An empty picture that was left empty is neither good nor bad.
            if path is None or not hits + wrong + lost:
                continue
            score = 2 * hits / (2 * hits + wrong + lost)
            found = {name: values[:kept] for name, values in found.items()}
            self.extremes.offer(
                (score, hits - wrong - lost),
                (path, found, truth, judged),
            )

    def _info(self, sample: Any) -> dict[str, Any]:
        """What the data set has of a picture, in pixels of its file."""
        place = self._places.get(sample.get('img_id'))
        if place is None:
            raise UserError(
                'the detections have no img_id of the validation data: add '
                "'img_id' to meta_keys of PackDetInputs in the pipeline of "
                'val_dataloader'
            )
        return self._dataset.get_data_info(place)

    def findings(self) -> Findings:
        """AP by class, curves, confusion, errors by kind."""
        scenes, classes = self._scenes, self.classes
        found = Findings(pictures=len(scenes))
        self._note(found)
        if not any(len(scene.truths) for scene in scenes):
            return found
        has_masks = all(scene.mask_ious is not None for scene in scenes)
        counts = detection.confusion(scenes, len(classes))
        precisions = [
            detection.rank(scenes, label).precisions()
            for label in range(len(classes))
        ]
        found.columns = [
            'class', 'objects', 'found', f'precision at {SCORE}',
            f'recall at {SCORE}', 'AP50', 'AP',
        ]  # fmt: skip
        for label, name in enumerate(classes):
            curve = precisions[label]
            right, objects = counts[label, label], counts[label].sum()
            # Found objects of other classes are in the row, too.
            found.rows.append(
                [
                    name,
                    int(objects),
                    int(right),
                    ratio(right, counts[:, label].sum()),
                    ratio(right, objects),
                    None if curve is None else float(curve[0].mean()),
                    None if curve is None else float(curve.mean()),
                ]
            )
        if has_masks:
            found.columns.append('mask AP')
            for label, row in enumerate(found.rows):
                masks = detection.rank(scenes, label, True).precisions()
                row.append(None if masks is None else float(masks.mean()))
        found.curves = drawn_curves(
            *detection.precision_curves(classes, precisions)
        )
        found.confusion = part_of_confusion(
            [*classes, 'background'],
            counts,
            f'Boxes of score {SCORE} and more that overlap an object (IoU) '
            f'by {detection.FOUND} and more. Row background: detections '
            'without an object; column background: objects without a '
            'detection.',
            kept=len(classes),
        )
        found.errors = detection.ErrorCosts(scenes).kinds()
        found.ranked_by = (
            f'F1 of the boxes of score {SCORE} and more, at an overlap (IoU) '
            f'of {detection.FOUND}'
        )
        self.draw_examples(
            found, lambda group, item: _example(group, item, classes)
        )
        return found

    def _note(self, found: Findings) -> None:
        """Say what is missing."""
        if not any(len(scene.truths) for scene in self._scenes):
            found.notes.append(
                'The validation data has no annotated object, so there are '
                'no figures by class.'
            )
        if not any(len(scene.scores) for scene in self._scenes):
            found.notes.append(
                'The model has detected nothing in any picture. It was '
                'trained too short, or its learning rate does not suit: see '
                'the losses.'
            )
        elif not any((s.scores >= SCORE).any() for s in self._scenes):
            best = max(s.scores.max() for s in self._scenes if len(s.scores))
            found.notes.append(
                f'No detection has a score of {SCORE}; the highest is '
                f'{best:.2f}. The confusion matrix and the pictures have '
                'detections of at least that score only.'
            )


def _predictions(sample: Any) -> dict[str, NDArray]:
    """Boxes, scores, labels and masks by descending score."""
    found = sample.pred_instances
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    values = dict(
        boxes=boxes.float().cpu().numpy().reshape(-1, 4),
        scores=found.scores.float().cpu().numpy(),
        labels=found.labels.cpu().numpy(),
    )
    if 'masks' in found:
        masks = getattr(found.masks, 'masks', found.masks)
        values['masks'] = (
            masks.cpu().numpy() if hasattr(masks, 'cpu') else np.array(masks)
        )
    order = np.argsort(-values['scores'], kind='stable')
    return {name: part[order] for name, part in values.items()}


def compare(
    found: dict[str, NDArray],
    truth: Sequence[dict[str, Any]],
    size: tuple[int, int],
) -> Scene:
    """Overlaps of detections with the truth of a picture.

    Args:
        found: ``boxes`` (left, top, right, bottom), ``scores``, ``labels``
            and maybe ``masks``, by descending score.
        truth: ``instances`` of mmdet.
        size: Height and width in pixels.
    """
    ignored = np.array([bool(one.get('ignore_flag')) for one in truth], bool)
    boxes = np.array([one['bbox'] for one in truth], float).reshape(-1, 4)
    masks = None
    if 'masks' in found and all('mask' in one for one in truth):
        predicted = np.asfortranarray(
            found['masks'].astype('uint8').transpose(1, 2, 0)
        )
        masks = _ious(
            coco_masks.encode(predicted) if predicted.size else [],
            [_run_lengths(one['mask'], size) for one in truth],
            ignored,
            len(found['scores']),
        )
    return Scene(
        found['scores'],
        found['labels'],
        np.array([one['bbox_label'] for one in truth], int),
        ignored,
        _ious(
            _with_sizes(found['boxes']),
            _with_sizes(boxes),
            ignored,
            len(found['scores']),
        ),
        masks,
    )


def _with_sizes(boxes: NDArray) -> NDArray:
    """Left, top, width, height."""
    boxes = boxes.astype(float)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _ious(found: Any, truth: Any, ignored: NDArray, count: int) -> NDArray:
    """``(D, G)``; of crowds, the share of the detection."""
    if not count or not len(truth):
        return np.zeros((count, len(truth)))
    return np.asarray(coco_masks.iou(found, truth, ignored.astype(int)))


def _run_lengths(mask: Any, size: tuple[int, int]) -> Any:
    """A mask of the annotations in COCO's compressed form."""
    if isinstance(mask, list):
        return coco_masks.merge(coco_masks.frPyObjects(mask, *size))
    if isinstance(mask['counts'], list):
        return coco_masks.frPyObjects(mask, *size)
    return mask


def _example(group: str, item: Any, classes: Sequence[str]) -> Example:
    path, found, truth, judged = item
    picture = open_picture(path)
    size = picture.size[::-1]
    wrong = [kind for kind in judged.kinds if kind not in ('hit', 'ignored')]
    lost = [
        not there and not one.get('ignore_flag')
        for there, one in zip(judged.found, truth, strict=True)
    ]
    caption = (
        f'{judged.kinds.count("hit")} of {len(truth)} objects found, '
        f'{len(wrong)} wrong detections'
    )
    if wrong:
        kinds = ', '.join(
            f'{wrong.count(k)} {k}' for k in dict.fromkeys(wrong)
        )
        caption += f' ({kinds})'
    rights = [kind in ('hit', 'ignored') for kind in judged.kinds]
    texts = [
        f'{classes[label]} {score:.2f}'
        for label, score in zip(found['labels'], found['scores'], strict=True)
    ]
    outlines = [
        coco_masks.decode(_run_lengths(one['mask'], size))
        for one in truth
        if 'mask' in one
    ]
    return Example(
        group,
        Path(path).name,
        caption,
        [
            (
                'truth',
                draw_boxes(
                    picture,
                    np.array([one['bbox'] for one in truth]).reshape(-1, 4),
                    [classes[one['bbox_label']] for one in truth],
                    [not one for one in lost],
                    outlines,
                ),
            ),
            (
                'prediction',
                draw_boxes(
                    picture,
                    found['boxes'],
                    texts,
                    rights,
                    list(found.get('masks', ())),
                ),
            ),
        ],
    )

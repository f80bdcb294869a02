"""The study of a segmentor."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmtransxnet.report import segmentation
from mmtransxnet.report.classification import rates
from mmtransxnet.report.drawing import draw_labels, open_picture
from mmtransxnet.report.findings import (
    Example,
    Findings,
    part_of_confusion,
)
from mmtransxnet.report.study import Study, name_of

_LEGEND = 24
"""Most classes of the legend; pictures of more cannot be read by colour."""


class SegmentorStudy(Study):
    """Counts the pixels of a segmentor."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        count = len(self.classes)
        self._counts = np.zeros((count, count), int)
        self._pictures = 0
        self._unlabelled = 0

    def add(self, batch: dict[str, Any], samples: Sequence[Any]) -> None:
        """Take the label maps of a batch."""
        for sample in samples:
            self._pictures += 1
            if 'gt_sem_seg' not in sample:
                self._unlabelled += 1
                continue
            predicted = sample.pred_sem_seg.data[0].cpu().numpy()
            truth = sample.gt_sem_seg.data[0].cpu().numpy()
            counts = segmentation.confusion(
                predicted, truth, len(self.classes)
            )
            self._counts += counts
            score = segmentation.mean_overlap(counts)
            path = sample.get('img_path')
            if score is None or path is None:
                continue
            # Label maps are small in bytes.
            predicted = predicted.astype('uint16')
            self.extremes.offer(
                (score,),
                (
                    path,
                    name_of(sample, self._pictures),
                    predicted,
                    truth.astype('uint16'),
                    score,
                ),
            )

    def findings(self) -> Findings:
        """Overlaps by class and confusion."""
        found = Findings(pictures=self._pictures)
        if self._unlabelled:
            found.notes.append(
                f'{self._unlabelled} pictures have no label map: '
                'LoadAnnotations is missing in the pipeline of '
                'val_dataloader.'
            )
        counts = self._counts
        if not counts.sum():
            found.notes.append('No pixel of the validation data is labelled.')
            return found
        shares = counts.sum(1) / counts.sum()
        found.columns = [
            'class', 'share of pixels', 'IoU', 'precision', 'recall',
        ]  # fmt: skip
        found.rows = [
            [name, float(share), overlap, precision, recall]
            for name, share, overlap, (_, precision, recall, _) in zip(
                self.classes,
                shares,
                segmentation.overlaps(counts),
                rates(counts),
                strict=True,
            )
        ]
        found.confusion = part_of_confusion(
            self.classes, counts, 'Pixels by their true class and predicted.'
        )
        found.ranked_by = 'mean IoU of the classes in the picture'
        self.draw_examples(found, self._example)
        if len(self.classes) <= _LEGEND:
            found.legend = [
                (name, f'#{red:02x}{green:02x}{blue:02x}')
                for name, (red, green, blue) in zip(
                    self.classes, self.palette, strict=True
                )
            ]
        return found

    def _example(self, group: str, item: Any) -> Example:
        path, name, predicted, truth, score = item
        picture = open_picture(path)
        return Example(
            group,
            name,
            f'mean IoU {score:.2f}',
            [
                ('truth', draw_labels(picture, truth, self.palette)),
                ('prediction', draw_labels(picture, predicted, self.palette)),
            ],
        )

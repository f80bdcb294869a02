"""The study of a classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmtransxnet.report import classification
from mmtransxnet.report.drawing import embed, open_picture, shrink
from mmtransxnet.report.findings import (
    Example,
    Findings,
    drawn_curves,
    part_of_confusion,
)
from mmtransxnet.report.study import Study, input_of, name_of


class ClassifierStudy(Study):
    """Collects the scores of a classifier."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self._scores: list[np.ndarray] = []
        self._truths: list[int] = []
        self._pictures = 0
        self._unlabelled = 0
        self._several = 0

    def add(self, batch: dict[str, Any], samples: Sequence[Any]) -> None:
        """Take the scores and labels of a batch."""
        for place, sample in enumerate(samples):
            self._pictures += 1
            label = sample.get('gt_label')
            if label is None:
                self._unlabelled += 1
                continue
            if label.numel() != 1:
                self._several += 1
                continue
            scores = sample.pred_score.float().cpu().numpy()
            truth = int(label)
            self._scores.append(scores)
            self._truths.append(truth)
            path = sample.get('img_path')
            tensor = None if path else input_of(batch, place).cpu().clone()
            name = name_of(sample, self._pictures)
            key = (float(scores[truth]), -float(scores.max()))
            self.extremes.offer(key, (path, tensor, name, scores, truth))

    def findings(self) -> Findings:
        """Rates by class, curves, confusion and calibration."""
        found = Findings(pictures=self._pictures)
        if self._several:
            found.notes.append(
                f'{self._several} pictures have no or several labels: there '
                'are no figures by class for them, only the metrics.'
            )
        if self._unlabelled:
            found.notes.append(
                f'{self._unlabelled} pictures have no label, so they are in '
                'no figure.'
            )
        if not self._scores or self._several:
            return found
        scores, truths = np.stack(self._scores), np.array(self._truths)
        names = self._names(scores.shape[1])
        predicted = scores.argmax(1)
        counts = classification.confusion(predicted, truths, len(names))
        curves = [
            classification.precision_curve(name, scores[:, k], truths == k)
            for k, name in enumerate(names)
        ]
        found.columns = [
            'class', 'pictures', 'precision', 'recall', 'F1', 'AP',
        ]  # fmt: skip
        found.rows = [
            [name, *rates, curve.ap]
            for name, rates, curve in zip(
                names, classification.rates(counts), curves, strict=True
            )
        ]
        found.curves = drawn_curves(classification.mean_curve(curves), curves)
        found.confusion = part_of_confusion(
            names, counts, 'Pictures by their true class and the predicted.'
        )
        found.calibration = classification.calibrate(
            scores.max(1).clip(0, 1), predicted == truths
        )
        found.ranked_by = 'the score of the true class'
        self.draw_examples(
            found, lambda group, item: _example(group, item, names)
        )
        return found

    def _names(self, count: int) -> list[str]:
        """Names of all scores; numbers for those without."""
        more = range(len(self.classes), count)
        return [*self.classes[:count], *map(str, more)]


def _example(group: str, item: Any, names: Sequence[str]) -> Example:
    path, tensor, name, scores, truth = item
    picture = shrink(open_picture(path, tensor))
    best = int(scores.argmax())
    caption = f'truth: {names[truth]} ({scores[truth]:.2f}); '
    caption += (
        'predicted the same'
        if best == truth
        else f'predicted: {names[best]} ({scores[best]:.2f})'
    )
    return Example(group, name, caption, [('picture', embed(picture))])

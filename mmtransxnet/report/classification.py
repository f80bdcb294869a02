"""Figures of a classifier, from its scores and the true classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtransxnet.report.findings import Calibration, Curve

BINS = 15
"""Bins of confidence in the reliability diagram."""

_POINTS = 101


def confusion(predicted: NDArray, truths: NDArray, classes: int) -> NDArray:
    """Counts by true (rows) and predicted class, ``(classes, classes)``."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truths, predicted), 1)
    return counts


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return float(part / whole) if whole else None


def rates(counts: NDArray) -> list[tuple[int, Any, Any, Any]]:
    """Numbers by class: truths, precision, recall, F1."""
    rows = []
    for label, right in enumerate(counts.diagonal()):
        truths, predicted = counts[label].sum(), counts[:, label].sum()
        rows.append(
            (
                int(truths),
                ratio(right, predicted),
                ratio(right, truths),
                ratio(2 * right, truths + predicted),
            )
        )
    return rows


def precision_curve(name: str, scores: NDArray, truths: NDArray) -> Curve:
    """Precision and recall of one class against all others.

    Args:
        name: The class.
        scores: Of the class, ``(N,)``.
        truths: Whether a picture is of the class, ``(N,)``.

    Returns:
        The curve; its average precision is not interpolated.
    """
    total = truths.sum()
    if not total:
        return Curve(name, [], [], None)
    order = np.argsort(-scores, kind='stable')
    found = truths[order].cumsum()
    # Pictures of equal score are taken together.
    last = np.append(np.diff(scores[order]) != 0, True)
    precision = (found / np.arange(1, len(found) + 1))[last]
    recall = (found / total)[last]
    ap = float((np.diff(recall, prepend=0.0) * precision).sum())
    chosen = np.unique(
        np.linspace(0, len(recall) - 1, _POINTS).round().astype(int)
    )
    return Curve(
        name,
        [0.0, *recall[chosen].round(4).tolist()],
        [float(precision[0]), *precision[chosen].round(4).tolist()],
        ap,
    )


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """The mean precision of all classes by recall; None w/o classes."""
    known = [curve for curve in curves if curve.ap is not None]
    if not known:
        return None
    recalls = np.linspace(0.0, 1.0, _POINTS)
    rows = [np.interp(recalls, c.recall, c.precision) for c in known]
    return Curve(
        'mean',
        recalls.round(3).tolist(),
        np.mean(rows, 0).round(4).tolist(),
        float(np.mean([c.ap for c in known])),
    )


def calibrate(confidence: NDArray, right: NDArray) -> Calibration:
    """Compare confidence and accuracy in bins of equal width.

    Args:
        confidence: Score of the predicted class, ``(N,)``, in [0, 1].
        right: Whether it is the true class, ``(N,)``.
    """
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    result = Calibration([], [], [], 0.0)
    for place in np.unique(places):
        mine = places == place
        sure, accuracy = confidence[mine].mean(), right[mine].mean()
        result.confidence.append(float(sure))
        result.accuracy.append(float(accuracy))
        result.count.append(int(mine.sum()))
        result.error += float(mine.mean() * abs(sure - accuracy))
    return result

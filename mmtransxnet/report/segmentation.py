"""Figures of a segmentor, from counts of pixels."""

import numpy as np
from numpy.typing import NDArray

from mmtransxnet.report.classification import ratio


def confusion(predicted: NDArray, truth: NDArray, classes: int) -> NDArray:
    """Pixels by true (rows) and predicted class.

    Args:
        predicted: Label map, ``(H, W)``.
        truth: Label map, ``(H, W)``; labels that are no class are ignored.
        classes: Number of classes.

    Returns:
        ``(classes, classes)``.
    """
    truth, predicted = truth.astype(int), predicted.astype(int)
    labelled = (truth >= 0) & (truth < classes)
    pairs = truth[labelled] * classes + predicted[labelled]
    counts = np.bincount(pairs, minlength=classes**2)
    return counts.reshape(classes, classes)


def overlaps(counts: NDArray) -> list[float | None]:
    """IoU of each class; None where it is neither true nor predicted."""
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    return [ratio(r, u) for r, u in zip(right, union, strict=True)]


def mean_overlap(counts: NDArray) -> float | None:
    """Mean IoU of the classes in the truth; None if there are none."""
    present = counts.sum(1) > 0
    values = [
        value
        for value, there in zip(overlaps(counts), present, strict=True)
        if there and value is not None
    ]
    return float(np.mean(values)) if values else None

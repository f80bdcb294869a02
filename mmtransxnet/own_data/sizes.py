"""Sizes of pictures and of objects, counts of classes."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Picture,
    Prepared,
)


def picture_sizes(pictures: Iterable[Picture]) -> np.ndarray:
    """Width and height of pictures in pixels, (N, 2)."""
    sizes = [(picture.width, picture.height) for picture in pictures]
    return np.array(sizes, float).reshape(-1, 2)


def object_sizes(pictures: Iterable[Picture]) -> np.ndarray:
    """Width and height of all boxes but crowds' in pixels, (N, 2)."""
    boxes = [
        item.box
        for picture in pictures
        for item in picture.objects
        if not item.crowd
    ]
    corners = np.array(boxes, float).reshape(-1, 4)
    return corners[:, 2:] - corners[:, :2]


def sides(sizes: np.ndarray) -> np.ndarray:
    """Side of the square with the area of each rectangle, (N,)."""
    return np.sqrt(np.maximum(sizes, 0).prod(axis=1))


def quantiles(
    values: Sequence[float] | np.ndarray, shares: Sequence[float]
) -> list[float]:
    """Quantiles of values; an empty list has none."""
    if not len(values):
        return []
    return [float(value) for value in np.quantile(values, shares)]


def of_split(prepared: Prepared, split: str) -> list[Picture]:
    """The pictures of a split."""
    return [p for p in prepared.collection.pictures if p.split == split]


def counts_of_classes(prepared: Prepared) -> dict[str, int]:
    """How many objects each class has in all splits.

    They are pictures in classification, and pictures that show the class in
    segmentation.
    """
    total: Counter[str] = Counter()
    for split in prepared.splits.values():
        total.update(split.objects)
    return {name: total[name] for name in prepared.collection.classes}


def unit_of(task: str) -> str:
    """What :func:`counts_of_classes` counts."""
    units = {
        CLASSIFICATION: 'pictures',
        DETECTION: 'objects',
        SEGMENTATION: 'pictures with it',
    }
    return units[task]

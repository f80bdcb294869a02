"""Which anchors fit the objects of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_FITS = 0.5
"""Overlap (IoU) with an anchor at the same place from which it fits."""

_COMPARED = 10_000
"""About how many boxes are compared, evenly spread."""

_WORTH = 0.02
"""Share of objects that must be won to leave the published scale."""


@dataclass(frozen=True)
class AnchorScale:
    """The scale that fits best.

    Attributes:
        scale: The scale, in strides of the feature map.
        fit: Share of the objects that its anchors fit.
        published: The scale of the recipe.
        published_fit: Share of the objects that its anchors fit.
    """

    scale: int
    fit: float
    published: int
    published_fit: float


def best_scale(boxes: np.ndarray, model: Mapping[str, Any]) -> AnchorScale:
    """Choose the scale of the anchors by the sizes of the objects.

    Positions are left out: an anchor and a box are compared as if their
    centres were the same.

    Args:
        boxes: Widths and heights in pixels of the training size, (N, 2).
        model: The model of a detector's config.
    """
    generator = generator_of(model)
    single_stage = 'octave_base_scale' in generator
    # Some thousands tell as much as all.
    boxes = boxes[:: max(1, len(boxes) // _COMPARED)]
    published = (
        generator['octave_base_scale']
        if single_stage
        else generator['scales'][0]
    )
    fits = {
        scale: _share(boxes, _anchor_sizes(generator, scale))
        for scale in (published, published // 2, published // 4)
    }
    best = max(fits, key=lambda scale: fits[scale])
    if fits[best] - fits[published] < _WORTH:
        best = published
    return AnchorScale(best, fits[best], published, fits[published])


def generator_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The anchors' settings of a detector's config."""
    head = model.get('rpn_head') or model['bbox_head']
    return head['anchor_generator']


def _anchor_sizes(generator: Mapping[str, Any], scale: int) -> np.ndarray:
    """Widths and heights of all anchors at a scale, (A, 2)."""
    octaves = generator.get('scales_per_octave', 1)
    factors = 2 ** (np.arange(octaves) / octaves)
    ratios = np.sqrt(generator['ratios'])  # of height to width
    strides = np.array(generator['strides'], float)
    areas = (scale * strides[:, None] * factors).ravel()
    return np.stack(
        [np.outer(areas, 1 / ratios).ravel(), np.outer(areas, ratios).ravel()],
        axis=1,
    )


def _share(boxes: np.ndarray, anchors: np.ndarray) -> float:
    """Share of the boxes that overlap with an anchor well enough."""
    common = np.minimum(boxes[:, None], anchors).prod(axis=2)
    either = boxes.prod(axis=1)[:, None] + anchors.prod(axis=1) - common
    return float(((common / either).max(axis=1) >= _FITS).mean())

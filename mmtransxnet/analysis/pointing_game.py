"""Pointing game: whether class activation lies on what was detected.

The energy-based pointing game (Score-CAM, arXiv 1910.01279) measures the share
of a map's sum inside the box of a detection; the pointing game (arXiv
1608.00507) whether the map's maximum lies there. A map without knowledge has
the box's share of the picture's area on average.

    model = Inferencer(config, checkpoint)
    data = [model.prepare(picture) for picture in pictures]
    random = build_model(config).state_dict()
    hits = list(play(model.model, data, [2, 3], random))
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmtransxnet.analysis.cam import METHODS, check_map, explain
from mmtransxnet.analysis.observation import observing
from mmtransxnet.analysis.targets import (
    Target,
    find_detections,
    is_detector,
)
from mmtransxnet.utils.errors import UserError

MIN_SCORE = 0.5
"""Minimum score of the detections that are explained, by default."""


@dataclass(frozen=True)
class Hit:
    """How much of one map lies in the box of one detection.

    Attributes:
        picture: Index of the picture.
        detection: Index of the detection in the picture, by its score.
        method: Name of the method.
        stage: Index of the stage whose output was used, from 0.
        random: Whether the map is that of a model with random weights.
        energy: Share of the map's sum inside the box, 0 to 1; NaN for a map
            that is 0 everywhere.
        maximum: Whether the pixel with the maximum is inside the box.
        area: Share of the map's pixels that are inside the box.
    """

    picture: int
    detection: int
    method: str
    stage: int
    random: bool
    energy: float
    maximum: bool
    area: float


def play(
    model: Any,
    data: Iterable[Mapping[str, Any]],
    stages: Sequence[int],
    random: Mapping[str, Tensor],
    min_score: float = MIN_SCORE,
) -> Iterator[Hit]:
    """Compare maps of all detections with their boxes.

    Of each detection of the trained model: Grad-CAM and Eigen-CAM of each
    stage, with the weights of the model and with random ones. The random model
    explains the detection of the trained one: the same box and class.

    Args:
        model: A detector of this suite.
        data: Each picture after the test pipeline.
        stages: Indices of the stages, from 0.
        random: A state of the model with random weights.
        min_score: Minimum score of the detections.

    Yields:
        The results, picture after picture.

    Raises:
        UserError: The model is no detector, or does not run a stage.
        ImportError: grad-cam is not installed.
    """
    if not is_detector(model):
        raise UserError(f'a {type(model).__name__} detects nothing')
    for stage in stages:
        check_map(model, stage, METHODS[0])
    for picture, item in enumerate(data):
        yield from _of_picture(model, item, picture, stages, random, min_score)


def _of_picture(
    model: Any,
    item: Mapping[str, Any],
    picture: int,
    stages: Sequence[int],
    random: Mapping[str, Tensor],
    min_score: float,
) -> list[Hit]:
    """The results of one picture."""
    with observing(model):
        batch = model.data_preprocessor(item, training=False)
        targets = find_detections(
            model, batch['inputs'], batch['data_samples'], min_score
        )
        hits: list[Hit] = []
        for stage in stages:
            hits += _hits(model, batch, targets, picture, stage, False)
        with _weights(model, random):
            for stage in stages:
                hits += _hits(model, batch, targets, picture, stage, True)
    return hits


def _hits(
    model: Any,
    batch: Mapping[str, Any],
    targets: Sequence[Target],
    picture: int,
    stage: int,
    random: bool,
) -> Iterator[Hit]:
    """The results of one stage of one picture."""
    for method in METHODS:
        values = None
        for number, target in enumerate(targets):
            # Eigen-CAM has no target: one map is that of all detections.
            if values is None or method != 'eigen-cam':
                values = explain(model, batch, target, stage, method).map
            assert target.box is not None
            score = in_box(values, target.box)
            yield Hit(picture, number, method, stage, random, *score)


def in_box(values: np.ndarray, box: np.ndarray) -> tuple[float, bool, float]:
    """Share of a map inside a box.

    Args:
        values: ``(H, W)``, not negative; NaN counts as outside of the map.
        box: Left, top, right, bottom in pixels.

    Returns:
        Share of the sum, whether the maximum is inside, and share of the
        pixels; see :class:`Hit`.
    """
    left, top, right, bottom = box
    rows, columns = (np.arange(n) + 0.5 for n in values.shape)
    inside = ((top <= rows) & (rows < bottom))[:, None] & (
        (left <= columns) & (columns < right)
    )
    known = ~np.isnan(values)
    total = values[known].sum()
    if not total > 0:
        return float('nan'), False, float(inside[known].mean())
    maximum = np.unravel_index(np.nanargmax(values), values.shape)
    return (
        float(values[inside & known].sum() / total),
        bool(inside[maximum]),
        float(inside[known].mean()),
    )


@contextmanager
def _weights(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights and buffers, until the context ends."""
    own = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)

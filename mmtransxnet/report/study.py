"""What the parts for all tasks share: a study sees batches, then concludes."""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmtransxnet.deploy import runtime
from mmtransxnet.report.findings import Example, Findings

EXAMPLES = 6
"""Number of worst and of best pictures."""


class Extremes:
    """Keeps the worst and the best of many pictures."""

    def __init__(self) -> None:
        self._count = 0
        self._worst: list[Any] = []
        self._best: list[Any] = []

    def offer(self, key: Sequence[float], item: Any) -> None:
        """Keep a picture if it is among the worst or the best.

        Args:
            key: Larger is better.
            item: What is needed to draw it.
        """
        self._count += 1
        for heap, sign in ((self._best, 1), (self._worst, -1)):
            signed = tuple(sign * value for value in key)
            # The number decides between equal keys, as items have no order.
            entry = (signed, -self._count, item)
            if len(heap) < EXAMPLES:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def groups(self) -> list[tuple[str, Any]]:
        """Pairs of ``worst`` or ``best`` and the item, extreme ones first.

        No picture is in both.
        """
        worst = sorted(self._worst, reverse=True)[: -(-self._count // 2)]
        known = {number for _, number, _ in worst}
        best = [
            entry
            for entry in sorted(self._best, reverse=True)
            if entry[1] not in known
        ]
        return [
            *(('worst', item) for _, _, item in worst),
            *(('best', item) for _, _, item in best),
        ]


class Study(ABC):
    """Collects the predictions of an evaluation.

    Args:
        dataset: The validation data.

    Attributes:
        classes: Their names; may be empty.
        palette: Colours of the classes, ``(N, 3)``.
    """

    def __init__(self, dataset: Any) -> None:
        meta = getattr(dataset, 'metainfo', None) or {}
        names = meta.get('classes') or ()
        if isinstance(names, str):
            names = (names,)
        self.classes = [str(name) for name in names]
        self.palette = _palette(meta.get('palette'), len(self.classes))
        self.extremes = Extremes()

    @abstractmethod
    def add(self, batch: dict[str, Any], samples: Sequence[Any]) -> None:
        """Take a batch.

        Args:
            batch: What the model got.
            samples: The data samples with its predictions.
        """

    def draw_examples(
        self, found: Findings, draw: Callable[[str, Any], Example]
    ) -> None:
        """Add the extreme pictures; note those that cannot be drawn."""
        for group, item in self.extremes.groups():
            try:
                found.examples.append(draw(group, item))
            except (OSError, ValueError) as error:
                found.notes.append(
                    f'One of the {group} pictures cannot be drawn: {error}.'
                )

    @abstractmethod
    def findings(self) -> Findings:
        """All figures, without the metrics of the config."""


def _palette(given: Any, count: int) -> np.ndarray:
    """The data set's colours, or some that differ."""
    # CocoDataset keeps the colours of COCO's 80 classes for any classes.
    if isinstance(given, str) or given is None or len(given) != count:
        given = runtime.colours(count)
    return np.array(given, int).reshape(count, 3)


def name_of(sample: Any, number: int) -> str:
    """File name of a picture, or its number if it is not a file."""
    path = sample.get('img_path')
    return Path(path).name if path else f'sample {number}'


def input_of(batch: dict[str, Any], place: int) -> Any:
    """What the model got of a picture, ``(3, H, W)``."""
    inputs = batch['inputs']
    return inputs[place]

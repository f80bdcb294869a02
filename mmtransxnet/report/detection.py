"""Figures of a detector, from the overlaps of its boxes with the truth.

Average precision is COCO's. The kinds of errors are those of TIDE (Bolya et
al., 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"):
what each costs is the AP50 that is gained if it alone were mended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtransxnet.report.findings import Curve, ErrorKind

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps (IoU) over which COCO's AP is averaged."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which COCO reads the precision."""

FOUND = 0.5
"""Overlap from which a detection is in its place."""

NEAR = 0.1
"""Overlap below which a detection belongs to no object."""

SCORE = 0.3
"""Minimum score of the detections that are counted and drawn."""

HIT, IGNORED = 'hit', 'ignored'

KINDS = dict(
    classification='in place, but of another class',
    localisation=f'right class, overlap (IoU) from {NEAR} to {FOUND}',
    both='another class and badly placed',
    duplicate='the object was found already with a higher score',
    background=f'no object there (IoU below {NEAR})',
    missed='objects without any detection',
)
"""The kinds of errors in words."""


@dataclass
class Scene:
    """The detections of a picture and its truth.

    Attributes:
        scores: ``(D,)``, descending.
        labels: ``(D,)``, the predicted classes.
        truths: ``(G,)``, the true classes.
        ignored: ``(G,)``, objects that are not counted, such as crowds.
        ious: ``(D, G)``, overlaps of the boxes.
        mask_ious: The same of the masks, if there are some.
    """

    scores: NDArray
    labels: NDArray
    truths: NDArray
    ignored: NDArray
    ious: NDArray
    mask_ious: NDArray | None = None


def match(
    ious: NDArray, ignored: NDArray, thresholds: NDArray = THRESHOLDS
) -> NDArray:
    """Give each detection of a class its object, as COCO does.

    Args:
        ious: ``(D, G)``, detections by descending score.
        ignored: ``(G,)``; such objects are taken last and more than once.
        thresholds: ``(T,)``, least overlaps.

    Returns:
        Number of the object for each threshold and detection, -1 for none,
        ``(T, D)``.
    """
    detections, objects = ious.shape
    partners = np.full((len(thresholds), detections), -1)
    if not objects:
        return partners
    rows = np.arange(len(thresholds))
    least = np.minimum(thresholds, 1 - 1e-10)
    taken = np.zeros((len(thresholds), objects), bool)
    for detection in range(detections):
        for allowed in (~taken & ~ignored, ignored):
            usable = np.where(allowed, ious[detection], -1.0)
            usable = np.broadcast_to(usable, taken.shape)
            # Of equal overlaps, COCO takes the last.
            best = objects - 1 - usable[:, ::-1].argmax(1)
            good = usable[rows, best] >= least
            good &= partners[:, detection] < 0
            partners[good, detection] = best[good]
            taken[rows[good], best[good]] |= ~ignored[best[good]]
    return partners


@dataclass
class Ranking:
    """All detections of a class in all pictures, by descending score.

    Attributes:
        hits: ``(T, N)``, whether a detection has found its object.
        counted: ``(T, N)``, False for those of ignored objects.
        total: Number of objects.
    """

    hits: NDArray
    counted: NDArray
    total: int

    def precisions(self) -> NDArray | None:
        """Precision at :data:`RECALLS`, ``(T, 101)``; None w/o objects."""
        if not self.total:
            return None
        return np.stack(
            [
                precision_at_recalls(hits[counted], self.total)
                for hits, counted in zip(self.hits, self.counted, strict=True)
            ]
        )


def precision_at_recalls(hits: NDArray, total: int) -> NDArray:
    """Interpolated precision at :data:`RECALLS`, ``(101,)``.

    Args:
        hits: ``(N,)``, by descending score.
        total: Number of objects, at least 1.
    """
    if not len(hits):
        return np.zeros(len(RECALLS))
    found = hits.cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / total, RECALLS, side='left')
    return np.append(envelope, 0.0)[places]


def rank(scenes: Sequence[Scene], label: int, masks: bool = False) -> Ranking:
    """Match the detections of a class in all pictures."""
    scores, hits, counted, total = [], [], [], 0
    for scene in scenes:
        own = scene.truths == label
        total += int((own & ~scene.ignored).sum())
        mine = scene.labels == label
        if not mine.any():
            continue
        ious = scene.mask_ious if masks else scene.ious
        assert ious is not None
        ignored = scene.ignored[own]
        partners = match(ious[mine][:, own], ignored)
        # The last value is that of detections without an object.
        of_ignored = np.append(ignored, False)[partners]
        scores.append(scene.scores[mine])
        hits.append((partners >= 0) & ~of_ignored)
        counted.append(~of_ignored)
    if not scores:
        nothing = np.zeros((len(THRESHOLDS), 0), bool)
        return Ranking(nothing, nothing, total)
    order = np.argsort(-np.concatenate(scores), kind='stable')
    return Ranking(
        np.concatenate(hits, 1)[:, order],
        np.concatenate(counted, 1)[:, order],
        total,
    )


def precision_curves(
    classes: Sequence[str], precisions: Sequence[NDArray | None]
) -> tuple[Curve | None, list[Curve]]:
    """Precision-recall curves at an overlap of 0.5.

    Args:
        classes: Their names.
        precisions: Of each class, from :meth:`Ranking.precisions`.

    Returns:
        The mean's curve, None if no class has objects, and the classes'.
    """

    def curve(name: str, values: NDArray | None) -> Curve:
        if values is None:
            return Curve(name, [], [], None)
        return Curve(
            name,
            RECALLS.round(3).tolist(),
            values.round(4).tolist(),
            float(values.mean()),
        )

    firsts = [None if p is None else p[0] for p in precisions]
    known = [values for values in firsts if values is not None]
    mean = curve('mean', np.mean(known, 0)) if known else None
    pairs = zip(classes, firsts, strict=True)
    return mean, [curve(name, values) for name, values in pairs]


@dataclass
class Judged:
    """What became of the detections and objects of a picture.

    Attributes:
        kinds: Of each detection: a key of :data:`KINDS`, ``hit`` or
            ``ignored``.
        targets: ``(D,)``, the object that a detection found, or would have
            found without its error; -1 for none.
        found: ``(G,)``, whether an object has a hit.
        missed: ``(G,)``, whether it has neither a hit nor a detection that
            differs only in class or place.
    """

    kinds: list[str]
    targets: NDArray
    found: NDArray
    missed: NDArray


def judge(scene: Scene, least: float = 0.0) -> Judged:
    """Find the kind of each detection's error.

    Args:
        scene: The picture.
        least: Detections with lower scores are left out.
    """
    count = int((scene.scores >= least).sum())
    labels, ious = scene.labels[:count], scene.ious[:count]
    targets = np.full(count, -1)
    for label in np.unique(labels):
        mine, own = labels == label, np.flatnonzero(scene.truths == label)
        partners = match(
            ious[mine][:, own], scene.ignored[own], np.array([FOUND])
        )[0]
        targets[mine] = np.append(own, -1)[partners]
    found = np.zeros(len(scene.truths), bool)
    found[targets[targets >= 0]] = True
    kinds = []
    for detection in range(count):
        if targets[detection] >= 0:
            ignored = scene.ignored[targets[detection]]
            kinds.append(IGNORED if ignored else HIT)
            continue
        kind, target = _kind(scene, detection)
        kinds.append(kind)
        targets[detection] = target
    nearly = np.isin(kinds, ('classification', 'localisation'))
    covered = found.copy()
    covered[targets[nearly]] = True
    return Judged(kinds, targets, found, ~covered & ~scene.ignored)


def _kind(scene: Scene, detection: int) -> tuple[str, int]:
    """The kind of a false detection, and the object that it meant."""
    overlaps = np.where(scene.ignored, -1.0, scene.ious[detection])
    same = scene.truths == scene.labels[detection]
    own, other = _best(overlaps, same), _best(overlaps, ~same)
    # In this order in the authors' program, too.
    if own[0] >= NEAR and own[0] < FOUND:
        return 'localisation', own[1]
    if other[0] >= FOUND:
        return 'classification', other[1]
    if own[0] >= FOUND:
        return 'duplicate', -1
    return ('both' if other[0] >= NEAR else 'background'), -1


def _best(overlaps: NDArray, allowed: NDArray) -> tuple[float, int]:
    """The largest overlap among some objects, and whose it is."""
    if not allowed.any():
        return -1.0, -1
    usable = np.where(allowed, overlaps, -1.0)
    place = int(usable.argmax())
    return float(usable[place]), place


class ErrorCosts:
    """The AP50 that each kind of errors costs.

    Args:
        scenes: All pictures.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        judged = [judge(scene) for scene in scenes]
        sizes = [len(scene.truths) for scene in scenes]
        starts = np.cumsum([0, *sizes])[: len(scenes)]
        self._truths = _joined([scene.truths for scene in scenes], int)
        self._found = _joined([one.found for one in judged], bool)
        self._missed = _joined([one.missed for one in judged], bool)
        counted = ~_joined([scene.ignored for scene in scenes], bool)
        self._totals = np.bincount(self._truths[counted])
        scores = _joined([scene.scores for scene in scenes], float)
        order = np.argsort(-scores, kind='stable')
        self._labels = _joined([scene.labels for scene in scenes], int)[order]
        kinds = [kind for one in judged for kind in one.kinds]
        self._kinds = np.array(kinds, dtype=object)[order]
        # Numbers of objects among those of all pictures.
        self._targets = _joined(
            [
                np.where(one.targets < 0, -1, one.targets + start)
                for one, start in zip(judged, starts, strict=True)
            ],
            int,
        )[order]

    def kinds(self) -> list[ErrorKind]:
        """All kinds with their numbers and costs."""
        base = self._ap(self._kinds, self._labels, self._totals)
        return [
            ErrorKind(name, meaning, self._count(name), self._fix(name) - base)
            for name, meaning in KINDS.items()
        ]

    def _count(self, name: str) -> int:
        if name == 'missed':
            return int(self._missed.sum())
        return int((self._kinds == name).sum())

    def _fix(self, name: str) -> float:
        """AP50 without one kind of errors."""
        kinds, labels = self._kinds.copy(), self._labels.copy()
        totals = self._totals
        if name == 'missed':
            missed = self._truths[self._missed]
            totals = totals - np.bincount(missed, minlength=len(totals))
        elif name in ('classification', 'localisation'):
            self._mend(name, kinds, labels)
        else:
            kinds[kinds == name] = IGNORED
        return self._ap(kinds, labels, totals)

    def _mend(self, name: str, kinds: NDArray, labels: NDArray) -> None:
        """Let detections hit their objects; a second one is dropped."""
        found = self._found.copy()
        for place in np.flatnonzero(kinds == name):
            target = self._targets[place]
            kinds[place] = IGNORED if found[target] else HIT
            labels[place] = self._truths[target]
            found[target] = True

    def _ap(self, kinds: NDArray, labels: NDArray, totals: NDArray) -> float:
        """Mean AP50 over the classes with objects; 1 if none are left."""
        values = []
        for label in np.flatnonzero(totals):
            mine = (labels == label) & (kinds != IGNORED)
            hits = (kinds[mine] == HIT).astype(bool)
            found = precision_at_recalls(hits, int(totals[label]))
            values.append(found.mean())
        return float(np.mean(values)) if values else 1.0


def _joined(parts: Sequence[NDArray], kind: type) -> NDArray:
    """Arrays of all pictures as one; there may be no pictures."""
    return np.concatenate([np.zeros(0), *parts]).astype(kind)


def confusion(scenes: Sequence[Scene], classes: int) -> NDArray:
    """Counts by true and predicted class; the last is the background.

    Detections of at least :data:`SCORE` first take objects of their class,
    then the remaining objects, at an overlap of :data:`FOUND`.

    Args:
        scenes: All pictures.
        classes: Number of classes.

    Returns:
        ``(classes + 1, classes + 1)``, rows are the truth.
    """
    counts = np.zeros((classes + 1, classes + 1), int)
    for scene in scenes:
        judged = judge(scene, SCORE)
        free = ~judged.found & ~scene.ignored
        for place, kind in enumerate(judged.kinds):
            label = scene.labels[place]
            if kind == IGNORED:
                continue
            if kind == HIT:
                counts[label, label] += 1
                continue
            overlap, target = _best(scene.ious[place], free)
            if overlap >= FOUND:
                free[target] = False
                counts[scene.truths[target], label] += 1
            else:
                counts[classes, label] += 1
        np.add.at(counts, (scene.truths[free], classes), 1)
    return counts

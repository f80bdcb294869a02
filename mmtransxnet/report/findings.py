"""The results of an evaluation, as plain data that is stored as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Curve:
    """A precision-recall curve.

    Attributes:
        name: The class, or ``mean``.
        recall: Ascending values in [0, 1].
        precision: One value for each recall.
        ap: Average precision; None for a class without objects.
    """

    name: str
    recall: list[float]
    precision: list[float]
    ap: float | None


@dataclass
class Confusion:
    """Counts by true class (rows) and predicted class (columns).

    Attributes:
        names: Of the rows and columns.
        counts: One list for each row.
        note: How the counts were made, and which classes are left out.
    """

    names: list[str]
    counts: list[list[int]]
    note: str


@dataclass
class ErrorKind:
    """One kind of errors of a detector.

    Attributes:
        name: The kind.
        meaning: In words.
        count: Number of detections, or of objects for missed ones.
        delta: AP50 that is gained if all of the kind were right.
    """

    name: str
    meaning: str
    count: int
    delta: float


@dataclass
class Calibration:
    """How often predictions of a confidence are right.

    Attributes:
        confidence: Mean confidence of each bin that has predictions.
        accuracy: Share of right predictions in it.
        count: Number of predictions in it.
        error: Expected calibration error.
    """

    confidence: list[float]
    accuracy: list[float]
    count: list[int]
    error: float


@dataclass
class Example:
    """A picture of the validation data with its prediction.

    Attributes:
        group: ``worst`` or ``best``.
        name: File name, or number of the sample.
        caption: What is right and wrong in it.
        images: Pairs of a title and a JPEG in base64.
    """

    group: str
    name: str
    caption: str
    images: list[tuple[str, str]]


@dataclass
class Findings:
    """All results of an evaluation.

    Attributes:
        pictures: Number of evaluated pictures.
        metrics: Values of the config's own evaluator by name.
        columns: Head of the table of classes.
        rows: Its rows; the first value is the name of the class.
        curves: Precision and recall, the mean first.
        confusion: None if the task has none.
        errors: Kinds of errors of a detector.
        calibration: Of a classifier.
        examples: The worst and the best pictures.
        legend: Names and colours (``#rrggbb``) of the drawn classes.
        ranked_by: What makes a picture bad or good.
        notes: What could not be computed, and why.
    """

    pictures: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    confusion: Confusion | None = None
    errors: list[ErrorKind] = field(default_factory=list)
    calibration: Calibration | None = None
    examples: list[Example] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    ranked_by: str = ''
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """The findings as a text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> 'Findings':
        """Findings from the text of :meth:`to_json`.

        Raises:
            ValueError: The text is damaged.
        """
        try:
            found = cls(**json.loads(text))
            found.curves = [Curve(**vars_) for vars_ in _dicts(found.curves)]
            found.errors = [ErrorKind(**v) for v in _dicts(found.errors)]
            found.examples = [Example(**v) for v in _dicts(found.examples)]
            if found.confusion is not None:
                found.confusion = Confusion(**_dict(found.confusion))
            if found.calibration is not None:
                found.calibration = Calibration(**_dict(found.calibration))
        except (TypeError, KeyError) as error:
            raise ValueError(f'not the findings: {error}') from error
        return found


def _dict(value: Any) -> dict[str, Any]:
    return value


def _dicts(values: Any) -> list[dict[str, Any]]:
    return values


SHOWN = 30
"""Most classes in a confusion matrix."""

DRAWN = 6
"""Most classes whose curves are drawn."""


def part_of_confusion(
    names: list[str], counts: Any, note: str, kept: int | None = None
) -> Confusion:
    """A confusion matrix of at most :data:`SHOWN` classes.

    Args:
        names: Of all rows and columns.
        counts: ``(N, N)``, rows are the truth.
        note: How it was made.
        kept: A row that is always shown, as that of the background.
    """
    if len(names) > SHOWN:
        wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        if kept is not None:
            wrong[kept] = wrong.max() + 1
        chosen = sorted((-wrong).argsort(kind='stable')[:SHOWN])
        note += (
            f' Of {len(names)} rows, the {SHOWN} with the most confusions '
            'are shown.'
        )
        names = [names[row] for row in chosen]
        counts = counts[chosen][:, chosen]
    return Confusion(names, counts.tolist(), note)


def drawn_curves(mean: Curve | None, curves: list[Curve]) -> list[Curve]:
    """The mean's curve and those of a few classes, half of them the worst."""
    known = sorted(
        (c for c in curves if c.ap is not None), key=lambda c: c.ap or 0.0
    )
    if len(known) > DRAWN:
        known = known[: DRAWN // 2] + known[-(DRAWN - DRAWN // 2) :]
    return [mean, *known] if mean else known

"""The rows of the metafiles: a model, its weights, its published figures."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmtransxnet.utils.errors import UserError

TOLERANCE = 0.1
"""Tolerance in percentage points for the same weights and data, for figures
with one digit: 0.05 for rounding, and 0.05 for other image decoders, devices
or precisions."""

METRICS: dict[str, tuple[str, float]] = {
    'Top 1 Accuracy': ('accuracy/top1', 1.0),
    'Top 5 Accuracy': ('accuracy/top5', 1.0),
    'top-1': ('accuracy/top1', 1.0),
    'box AP': ('coco/bbox_mAP', 100.0),
    'box AP50': ('coco/bbox_mAP_50', 100.0),
    'mask AP': ('coco/segm_mAP', 100.0),
    'mask AP50': ('coco/segm_mAP_50', 100.0),
    'mIoU': ('mIoU', 1.0),
    'aAcc': ('aAcc', 1.0),
    'mAcc': ('mAcc', 1.0),
}
"""Names in metafiles, in percent: names in the evaluators, and the factor."""


@dataclass(frozen=True)
class Row:
    """A model of a metafile.

    Attributes:
        name: Its name.
        task: Folder of its config (``'detection'``, ...), or ``'digits'``.
        config: Path of its config.
        weights: Path, URL or ``transxnet://`` name of its weights.
        figures: Published metrics in percent, by their names.
        tolerances: Tolerance of each metric, in percentage points.
    """

    name: str
    task: str
    config: str
    weights: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)


def read_rows(metafile: Path) -> list[Row]:
    """Read the models of a metafile.

    Metafiles have the model-index format; ``Metadata: {Tolerance: ...}``, a
    number or a number for each metric, is an addition of this suite.

    Raises:
        UserError: It cannot be read, or has unknown metrics.
    """
    try:
        content = yaml.safe_load(metafile.read_text())
        return [_row(model, metafile) for model in content['Models']]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f'{metafile} is not a metafile ({error!r})') from error


def _row(model: Mapping[str, Any], metafile: Path) -> Row:
    figures: dict[str, float] = {}
    for result in model.get('Results') or []:
        figures.update(result['Metrics'])
    unknown = sorted(set(figures) - set(METRICS))
    if unknown:
        raise UserError(
            f'{metafile}: {model["Name"]} has the metrics {unknown}; known '
            f'are {list(METRICS)}'
        )
    digits = 'digits' in metafile.stem
    return Row(
        name=model['Name'],
        task='digits' if digits else Path(model['Config']).parent.name,
        config=model['Config'],
        weights=model.get('Weights'),
        figures={name: float(value) for name, value in figures.items()},
        tolerances=_tolerances(model, figures),
    )


def _tolerances(
    model: Mapping[str, Any], figures: Iterable[str]
) -> dict[str, float]:
    stated = (model.get('Metadata') or {}).get('Tolerance', TOLERANCE)
    if not isinstance(stated, Mapping):
        stated = dict.fromkeys(figures, stated)
    return {name: float(stated.get(name, TOLERANCE)) for name in figures}


def select_rows(
    rows: Sequence[Row], tasks: Sequence[str], names: Sequence[str]
) -> list[Row]:
    """Keep the rows of some tasks and some models.

    Args:
        rows: All rows.
        tasks: Tasks; empty for all.
        names: Names of models; empty for all.

    Raises:
        UserError: A task or model is unknown, or no row is left.
    """
    for flag, wanted, known in (
        ('--task', tasks, [row.task for row in rows]),
        ('--models', names, [row.name for row in rows]),
    ):
        for name in set(wanted) - set(known):
            close = difflib.get_close_matches(name, known) or sorted({*known})
            raise UserError(
                f'{flag} {name}: no metafile has it; did you mean '
                f'{", ".join(close)}?'
            )
    kept = [
        row
        for row in rows
        if row.task in (tasks or [row.task])
        and row.name in (names or [row.name])
    ]
    if not kept:
        raise UserError('no model is of both --task and --models')
    return kept

"""What a data set has, as tables."""

import math
from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from mmtransxnet.own_data.collection import DETECTION, Prepared
from mmtransxnet.own_data.decisions import Decisions
from mmtransxnet.own_data.sizes import (
    counts_of_classes,
    object_sizes,
    picture_sizes,
    quantiles,
    sides,
    unit_of,
)
from mmtransxnet.utils.text import first_few, shorten

_MOST_CLASSES = 30
"""Classes that are listed; the others are counted."""

_UNEVEN = 10
"""From this ratio of the largest to the smallest class, it is pointed out."""


def overview_tables(
    prepared: Prepared, broken: Sequence[str] = ()
) -> list[Table]:
    """Tables of what was found, of the classes, and of what was dropped.

    Args:
        prepared: The data.
        broken: What a check of all files found, one line each.
    """
    tables = [_summary(prepared, broken), _classes(prepared)]
    dropped = prepared.collection.dropped
    if dropped:
        table = Table('not taken over', 'times')
        for reason, count in dropped.most_common():
            table.add_row(escape(shorten(reason)), f'{count:,}')
        tables.append(table)
    return tables


def decisions_table(made: Decisions) -> Table:
    """All choices with their reasons."""
    table = Table('choice', 'value', 'why')
    for choice in made.choices:
        value = '' if choice.value is None else _shown(choice.value)
        table.add_row(choice.name, value, escape(choice.reason))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f'{value:.3g}'
    if isinstance(value, tuple):
        return ' x '.join(map(str, value))
    return escape(str(value))


def _summary(prepared: Prepared, broken: Sequence[str]) -> Table:
    """Kind, task, splits, sizes and broken files."""
    data = prepared.collection
    table = Table(show_header=False, title=escape(shorten(str(data.root))))
    rows = [
        ('kind', data.kind),
        *(('', reason) for reason in data.reasons),
        ('task', _task(prepared)),
        ('pictures', _splits(prepared)),
        ('sizes', _spread(picture_sizes(data.pictures), 'pixels')),
    ]
    if data.task == DETECTION:
        rows.append(
            ('objects', _spread(object_sizes(data.pictures), 'pixels'))
        )
    if prepared.tile:
        rows.append(('tiles', f'{prepared.tile} pixels, overlapping'))
    rows.append(('classes', _imbalance(prepared)))
    found = f'{len(broken)}: {first_few(broken, separator="; ")}'
    rows.append(('broken files', found if broken else 'none'))
    for name, text in rows:
        table.add_row(name, escape(' '.join(text.split())))
    return table


def _task(prepared: Prepared) -> str:
    data = prepared.collection
    if data.task != DETECTION:
        return data.task
    return f'{data.task}, {"masks" if data.has_masks else "boxes"}'


def _splits(prepared: Prepared) -> str:
    return ', '.join(
        f'{split.pictures:,} {name}' for name, split in prepared.splits.items()
    )


def _spread(sizes: np.ndarray, unit: str) -> str:
    """Number and quantiles of the sides of rectangles."""
    if not len(sizes):
        return 'none'
    low, half, high = quantiles(sides(sizes), [0.05, 0.5, 0.95])
    return (
        f'{len(sizes):,} with sides of {low:.0f}, {half:.0f}, {high:.0f} '
        f'{unit} (5%, 50%, 95%; side of the square of equal area)'
    )


def _imbalance(prepared: Prepared) -> str:
    counts = counts_of_classes(prepared)
    text = f'{len(counts)}'
    most = max(counts, key=lambda name: counts[name])
    least = min(counts, key=lambda name: counts[name])
    absent = [name for name, count in counts.items() if count == 0]
    if absent:
        return f'{text}; no example of {first_few(absent)}'
    ratio = counts[most] / counts[least]
    if ratio < _UNEVEN:
        return text
    return (
        f'{text}, uneven: {shorten(most)} has {math.floor(ratio)} times as '
        f'many examples as {shorten(least)}'
    )


def _classes(prepared: Prepared) -> Table:
    """How often each class occurs in each split."""
    counts = counts_of_classes(prepared)
    table = Table('class', title=unit_of(prepared.collection.task))
    for split in prepared.splits:
        table.add_column(split, justify='right')
    names = list(counts)
    for name in names[:_MOST_CLASSES]:
        numbers = (s.objects.get(name, 0) for s in prepared.splits.values())
        table.add_row(
            escape(shorten(name, 40)), *(f'{number:,}' for number in numbers)
        )
    if len(names) > _MOST_CLASSES:
        table.add_row(f'and {len(names) - _MOST_CLASSES} more')
    return table

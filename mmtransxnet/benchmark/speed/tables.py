"""Tables of the docs, made from the files of ``make bench``."""

import statistics
from collections.abc import Iterator

from mmtransxnet.benchmark.speed.records import Record, headline
from mmtransxnet.benchmark.speed.standard import (
    LABELS,
    STANDARD,
    Comparison,
    Work,
)

NOT_MEASURED = 'Not measured yet: `make bench`.\n'


def ratios(records: list[Record]) -> str:
    """A row for each comparison, a column for each file."""
    if not records:
        return NOT_MEASURED
    titles = [f'{record.title} ({record.version})' for record in records]
    rows = [
        [
            _name(work, comparison),
            LABELS[other],
            *(_ratios([r], work, comparison, other) for r in records),
        ]
        for work, comparison in _comparisons()
        for other in comparison.others
    ]
    return _markdown(['TransXNet-T', 'compared with', *titles], rows)


def summary(records: list[Record]) -> str:
    """A row for each comparison, ranges over the files of the headline.

    The peer is in the precision of the row.
    """
    records = headline(records)
    if not records:
        return NOT_MEASURED
    rows = []
    for work, comparison in _comparisons():
        row = {'TransXNet-T': _name(work, comparison)}
        for other in comparison.others:
            column = LABELS[other].removesuffix(' in bf16')
            row[column] = _ratios(records, work, comparison, other)
        rows.append(row)
    columns = list(rows[0])
    cells = [[row.get(column, '') for column in columns] for row in rows]
    return _markdown(columns, cells)


def details(records: list[Record]) -> str:
    """A table of each file with the figures of all cases."""
    return '\n'.join(map(_details, records)) or NOT_MEASURED


def _comparisons() -> Iterator[tuple[Work, Comparison]]:
    for work in STANDARD:
        for comparison in work.comparisons:
            yield work, comparison


def _name(work: Work, comparison: Comparison) -> str:
    return ', '.join(filter(None, (work.title, comparison.form)))


def _ratios(
    records: list[Record], work: Work, comparison: Comparison, other: str
) -> str:
    """Speed and, where it was measured, peak memory, of all runs."""
    names = work.name, comparison.case, other
    speed = [v for record in records for v in record.speed_ratios(*names)]
    memory = [v for record in records for v in record.memory_ratios(*names)]
    text = _range(speed)
    return f'{text}; memory {_range(memory)}' if memory else text


def _details(record: Record) -> str:
    peaks = ', '.join(
        f'{flops / 1e9:.0f} GFLOP/s in {name}'
        for name, flops in record.flops.items()
    )
    columns = ['case', 'seconds', 'of matmul', 'page faults', 'system time']
    rows = [
        [work.title, case, *_figures(record, work, case)]
        for work in STANDARD
        for case in work.cases
        if record.results(work.name, case)
    ]
    table = _markdown(['work', *columns, 'peak memory in MiB'], rows)
    return (
        f'{record.title}; version {record.version}, {record.software}; '
        f'runs: {len(record.runs)}; matrix products: {peaks}\n\n{table}'
    )


def _figures(record: Record, work: Work, case: str) -> list[str]:
    results = record.results(work.name, case)
    seconds = [statistics.median(result['seconds']) for result in results]
    peaks = [r['peak_mib'] for r in results if r['peak_mib']]
    return [
        _range(seconds, '{:.3g}'),
        _range([result['peak_share'] for result in results], '{:.0%}'),
        _range([result['page_faults'] for result in results], '{:.0f}'),
        _range([result['system_share'] for result in results], '{:.0%}'),
        _range(peaks, '{:.0f}'),
    ]


def _range(values: list[float], form: str = '{:.2f}x') -> str:
    """Least and greatest value, or the only one; nothing without values."""
    if not values:
        return ''
    least, greatest = form.format(min(values)), form.format(max(values))
    return least if least == greatest else f'{least} to {greatest}'


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ['---'] * len(columns), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


SPEED_TABLES = dict(speed=ratios, speed_summary=summary, speed_details=details)

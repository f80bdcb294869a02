"""The report of a reproduction, for people and for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmtransxnet.benchmark.rows import Row
from mmtransxnet.benchmark.runs import Outcome

_HEADER = (
    '| model | metric | published | measured | difference | tolerance | '
    'state | minutes |\n'
    '|---|---|---|---|---|---|---|---|\n'
)


def write_report(
    rows: Sequence[Row], outcomes: Sequence[Outcome], folder: Path
) -> None:
    """Write ``report.md`` and ``report.json`` into a folder.

    Args:
        rows: The rows.
        outcomes: Their outcomes, in the same order.
        folder: The folder.
    """
    pairs = list(zip(rows, outcomes, strict=True))
    counts = Counter(outcome.state for outcome in outcomes)
    totals = ', '.join(f'{count} {state}' for state, count in counts.items())
    lines = [line for pair in pairs for line in _lines(*pair)]
    reasons: dict[str, list[str]] = {}
    for row, outcome in pairs:
        if outcome.reason:
            reasons.setdefault(outcome.reason, []).append(row.name)
    text = f'# Reproduction of published figures\n\n{totals}.\n\n'
    text += _HEADER + ''.join(lines)
    if reasons:
        text += '\n## Why\n\n' + ''.join(
            f'- {", ".join(names)}: {reason}\n'
            for reason, names in reasons.items()
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.md').write_text(text)
    content = {
        'counts': dict(counts),
        'rows': [{**asdict(row), **asdict(out)} for row, out in pairs],
    }
    (folder / 'report.json').write_text(json.dumps(content, indent=2))


def _lines(row: Row, outcome: Outcome) -> list[str]:
    """A line of the table for each metric, at least one."""
    lines = []
    for name in row.figures or ['']:
        cells = [row.name, name, '', '', '', '', outcome.state, '']
        if name:
            cells[2] = f'{row.figures[name]:.1f}'
            cells[5] = f'{row.tolerances[name]:g}'
        if name in outcome.measured:
            measured = outcome.measured[name]
            cells[3] = f'{measured:.2f}'
            cells[4] = f'{measured - row.figures[name]:+.2f}'
            cells[7] = f'{outcome.minutes:.1f}'
        lines.append(f'| {" | ".join(cells)} |\n')
    return lines

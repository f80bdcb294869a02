"""The starts of a run: what their logs say, and the curves of all."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_TIME = re.compile(r'(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ')
_EPOCH = re.compile(r'Epoch\(train\)\s+\[\d+\]\[\s*\d+/(\d+)\]')
_RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
_ENTRY = re.compile(r' {4}(\w[\w ,.]*): (.+)')
_SUMMARY = re.compile(r' {2}(\w+) {2,}(.+)')
_STAMP = '%Y/%m/%d %H:%M:%S'


@dataclass
class Start:
    """One start of a run: a folder that mmengine names by the time.

    Attributes:
        name: Name of the folder.
        resumed: Iteration from which it resumed; 0 for the beginning.
        begin: Time of the first line of the log, None without a log.
        end: That of the last line.
        environment: Versions, seed and device, as mmengine logs them.
        summary: Lines of ``This run:`` in the log.
        epoch_length: Iterations of an epoch, None where it is not known.
        records: What ``scalars.json`` has, a dict for each line.
        unreadable: Number of its lines that are damaged.
        not_finite: Number of values that are NaN or infinite.
    """

    name: str
    resumed: int = 0
    begin: datetime | None = None
    end: datetime | None = None
    environment: dict[str, str] = field(default_factory=dict)
    summary: dict[str, str] = field(default_factory=dict)
    epoch_length: int | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0
    not_finite: int = 0

    @property
    def seconds(self) -> float:
        """Time from the first to the last line of the log."""
        if self.begin is None or self.end is None:
            return 0.0
        return (self.end - self.begin).total_seconds()

    def points(self) -> Iterator[tuple[float, str, dict[str, float]]]:
        """Yield iteration, ``train`` or ``val``, and the values."""
        last = 0.0
        for record in self.records:
            values = {
                name: float(value)
                for name, value in record.items()
                if isinstance(value, int | float) and name not in _COUNTERS
            }
            step = float(record.get('step', last))
            if 'iter' in record:
                last = float(record['iter'])
                yield last, 'train', values
            elif self.epoch_length:
                yield step * self.epoch_length, 'val', values
            else:
                # Some loops give epochs, which stay behind iterations.
                yield max(step, last), 'val', values


_COUNTERS = ('iter', 'step', 'epoch')


def read_starts(work_dir: Path) -> list[Start]:
    """All starts of the training in a work directory, oldest first.

    Those that only tested have no curves and are left out.
    """
    folders = sorted(
        path.parent for path in work_dir.glob('*/vis_data') if path.is_dir()
    )
    starts = [read_start(folder) for folder in folders]
    return [start for start in starts if start.records or start.summary]


def read_start(folder: Path) -> Start:
    """Read the log and the curves of one start."""
    start = Start(folder.name)
    for file in sorted(folder.glob('*.log')):
        with file.open(encoding='utf-8', errors='replace') as lines:
            for line in lines:
                _read_line(start, line.rstrip('\n'))
    scalars = folder / 'vis_data/scalars.json'
    if scalars.is_file():
        text = scalars.read_text('utf-8', errors='replace')
        for line in text.splitlines():
            _read_record(start, line)
    return start


def _read_line(start: Start, line: str) -> None:
    """Take what a line of the log says."""
    stamp = _TIME.match(line)
    if stamp:
        start.end = datetime.strptime(stamp[1], _STAMP)
        start.begin = start.begin or start.end
        epoch, resumed = _EPOCH.search(line), _RESUMED.search(line)
        if epoch:
            start.epoch_length = int(epoch[1])
        if resumed:
            start.resumed = int(resumed[1])
        return
    entry, summary = _ENTRY.fullmatch(line), _SUMMARY.fullmatch(line)
    if entry:
        start.environment.setdefault(entry[1], entry[2].strip())
    elif summary:
        start.summary.setdefault(summary[1], summary[2])


def _read_record(start: Start, line: str) -> None:
    try:
        record = json.loads(line)
    except ValueError:  # the last line of a killed run
        start.unreadable += 1
        return
    if not isinstance(record, dict):
        start.unreadable += 1
        return
    lost = [
        name
        for name, value in record.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    start.not_finite += len(lost)
    for name in lost:
        del record[name]
    start.records.append(record)


@dataclass
class Series:
    """Values over iterations.

    Attributes:
        name: As in ``scalars.json``.
        steps: Iterations, ascending.
        values: One for each.
    """

    name: str
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def merge(starts: list[Start]) -> dict[str, dict[str, Series]]:
    """Join the curves of all starts.

    A start replaces what earlier ones recorded after the iteration from which
    it resumed, so no iteration counts twice.

    Returns:
        Curves by name, for ``train`` and ``val``.
    """
    points: dict[tuple[str, float], dict[str, float]] = {}
    for start in starts:
        own = list(start.points())
        if own:
            points = {
                key: values
                for key, values in points.items()
                if key[1] <= start.resumed
            }
        for step, split, values in own:
            points.setdefault((split, step), {}).update(values)
    curves: dict[str, dict[str, Series]] = {'train': {}, 'val': {}}
    for (split, step), values in sorted(points.items()):
        for name, value in values.items():
            series = curves[split].setdefault(name, Series(name))
            series.steps.append(step)
            series.values.append(value)
    return curves

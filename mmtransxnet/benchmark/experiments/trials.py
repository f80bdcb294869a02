"""Many short trainings, each written down when it ends."""

import datetime
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import mmtransxnet
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

Trial = dict[str, Any]
"""What identifies a trial: names, numbers and seeds, as JSON keeps them."""

Record = dict[str, Any]
"""A trial, its ``'trial'``, and what was measured, its ``'result'``."""


def read_records(path: Path) -> list[Record]:
    """Read the records of a file, one in a line; none if there is no file.

    Raises:
        UserError: A line is not a record.
    """
    records = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.append(
                dict(trial=record['trial'], result=record['result'])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}, line {number} is not a record of a trial; remove '
                'the line'
            ) from error
    return records


def run_trials(
    trials: Sequence[Trial],
    path: Path,
    work: Callable[[Trial], dict[str, Any]],
    report: Callable[[str], None],
    minutes: float | None = None,
) -> None:
    """Run the trials that a file has no record of.

    Args:
        trials: The trials, in their order.
        path: The file, a record in a line; rewritten after each trial.
        work: Runs a trial and returns its result.
        report: Gets a line after each trial.
        minutes: No trial is started after this time.

    Raises:
        UserError: The file has lines that are not records, or it cannot be
            written.
    """
    records = read_records(path)
    known = [record['trial'] for record in records]
    todo = [trial for trial in trials if trial not in known]
    report(f'{len(trials) - len(todo)} of {len(trials)} trials are known')
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for number, trial in enumerate(todo, 1):
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            report(f'{minutes:g} minutes are over')
            return
        result = work(trial)
        records.append(dict(trial=trial, result=result))
        _write(path, records)
        report(f'{number}/{len(todo)} {_in_words(trial)}: {_in_words(result)}')


def result_of(
    trial: Trial, path: Path, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The result of a trial: from a file, or measured and added to it.

    Args:
        trial: The trial.
        path: The file, a record in a line.
        work: Runs the trial and returns its result.

    Raises:
        UserError: As :func:`run_trials`.
    """
    records = read_records(path)
    for record in records:
        if record['trial'] == trial:
            return record['result']
    result = work()
    _write(path, [*records, dict(trial=trial, result=result)])
    return result


def _write(path: Path, records: Sequence[Record]) -> None:
    text = ''.join(json.dumps(record) + '\n' for record in records)
    write_safely(path, text.encode(), 'start again')


def describe() -> dict[str, str]:
    """With what is measured, for a record."""
    processor = torch.backends.cpu.get_cpu_capability()
    return {
        'mmtransxnet': mmtransxnet.__version__,
        'torch': torch.__version__,
        'CPU': f'{platform.machine()} {processor}',
        'date': datetime.date.today().isoformat(),
    }


def _in_words(values: dict[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for name, value in values.items())

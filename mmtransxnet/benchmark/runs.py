"""Evaluate a row with tools/test.py and compare."""

import json
import math
import re
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmtransxnet.benchmark.checks import Checked
from mmtransxnet.benchmark.commands import Launch, evaluation_command
from mmtransxnet.benchmark.rows import METRICS, Row
from mmtransxnet.utils.atomic_write import write_safely


@dataclass
class Outcome:
    """The outcome of a row.

    Attributes:
        name: Name of the row.
        state: ``'reproduced'``, ``'differs'``, ``'failed'``, or why it was
            not evaluated.
        measured: Metrics in percent, by the metafile's names.
        reason: Explanation of the state, if needed.
        minutes: Wall time of the evaluation.
        identity: Identity of the evaluated config and weights.
        checkpoint: The weights.
        command: The command line.
    """

    name: str
    state: str
    measured: dict[str, float] = field(default_factory=dict)
    reason: str = ''
    minutes: float = 0.0
    identity: str = ''
    checkpoint: str = ''
    command: list[str] = field(default_factory=list)


def load_outcomes(folder: Path) -> dict[str, Outcome]:
    """Outcomes of earlier runs in a folder, by name."""
    outcomes = {}
    for path in sorted(folder.glob('*/outcome.json')):
        outcome = Outcome(**json.loads(path.read_text()))
        outcomes[outcome.name] = outcome
    return outcomes


def still_holds(earlier: Outcome, checked: Checked) -> bool:
    """Whether an earlier outcome is of this config and these weights.

    Figures published since are not included in it.
    """
    return (
        earlier.identity == checked.identity
        and earlier.measured.keys() >= checked.row.figures.keys()
    )


def evaluate(
    checked: Checked, launch: Launch, root: Path, folder: Path
) -> Outcome:
    """Evaluate a row that is ready, and save the outcome.

    Args:
        checked: The row.
        launch: How the processes are started.
        root: Folder that has ``tools/`` and ``configs/``.
        folder: Folder of the outcomes; logs go to ``NAME/``.
    """
    row = checked.row
    work_dir = folder / row.name
    work_dir.mkdir(parents=True, exist_ok=True)
    command = evaluation_command(
        launch, row.name, row.config, checked.checkpoint, work_dir
    )
    start = time.time()
    log = work_dir / 'output.log'
    with log.open('w') as file:
        status = subprocess.run(
            command.words,
            cwd=root,
            env=command.full_environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    outcome = Outcome(
        name=row.name,
        state='failed',
        minutes=round((time.time() - start) / 60, 2),
        identity=checked.identity,
        checkpoint=checked.checkpoint,
        command=command.words,
    )
    if status:
        outcome.reason = f'{_error_line(log)} (status {status}, see {log})'
    else:
        _take_metrics(outcome, row, work_dir, start)
    compare_figures(outcome, row)
    _save(outcome, work_dir / 'outcome.json')
    return outcome


def _error_line(log: Path) -> str:
    """The line of a log that explains the failure."""
    # Skip separators such as torchrun's last line.
    lines = [x for x in log.read_text().splitlines() if re.search(r'\w', x)]
    errors = [line for line in lines if line.startswith('error:')]
    return (errors or lines or ['no output'])[-1].strip()


def _take_metrics(
    outcome: Outcome, row: Row, work_dir: Path, start: float
) -> None:
    """Read the metrics that the Runner wrote since the start."""
    files = [
        path
        for path in work_dir.glob('*/*.json')
        if path.stat().st_mtime >= math.floor(start)
    ]
    if not files:
        outcome.reason = f'no metrics were written into {work_dir}'
        return
    latest = max(files, key=lambda path: path.stat().st_mtime)
    metrics = json.loads(latest.read_text())
    for name in row.figures:
        key, factor = METRICS[name]
        value = metrics.get(key, math.nan)
        if not math.isfinite(value):
            problem = f'{key} is {value}' if key in metrics else f'no {key}'
            outcome.reason = f'{latest}: {problem}'
            return
        outcome.measured[name] = value * factor


def compare_figures(outcome: Outcome, row: Row) -> None:
    """Compare with the published figures, if all were measured."""
    if not outcome.measured.keys() >= row.figures.keys():
        outcome.state = 'failed'
        return
    within = all(
        # Allow for rounding in floating point.
        abs(outcome.measured[name] - figure) <= row.tolerances[name] + 1e-6
        for name, figure in row.figures.items()
    )
    outcome.state = 'reproduced' if within else 'differs'


def _save(outcome: Outcome, path: Path) -> None:
    """Write an outcome atomically."""
    content = json.dumps(asdict(outcome), indent=2).encode()
    write_safely(path, content, 'start again')

"""Several runs of the standard table, each work in a fresh process.

A process of its own gives each work a heap that nothing else has used, and
each run another one.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmtransxnet
from mmtransxnet.benchmark.speed.records import file_name
from mmtransxnet.benchmark.speed.standard import FLOPS, Work
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.paths import ROOT

_SPEED = ROOT / 'tools' / 'benchmark' / 'speed.py'

# What is kept of a result of speed.py.
_KEPT = (
    'case', 'mode', 'shape', 'seconds', 'flops', 'peak_share',
    'page_faults', 'system_share', 'peak_mib',
)  # fmt: skip


def expected_minutes(works: Sequence[Work], runs: int, flops: float) -> float:
    """Wall time of all runs, from the machine's matrix products."""
    return runs * sum(work.seconds for work in works) * FLOPS / flops / 60


def bench(
    works: Sequence[Work],
    runs: int,
    threads: int,
    keep_memory: bool,
    scratch: Path,
    folder: Path,
    report: Callable[[str], Any],
) -> Path:
    """Measure and write the file of this machine and version.

    It is written when all is measured, so that it has whole runs only.

    Args:
        works: What to measure.
        runs: How often.
        threads: Threads on the CPU.
        keep_memory: Whether freed memory is kept, as the tools do.
        scratch: Folder of the results of the single processes.
        folder: Folder of the file.
        report: Receives a line before each process.

    Returns:
        The file; an earlier one of the machine and the version is replaced.

    Raises:
        UserError: A process failed.
    """
    measured: list[list[dict[str, Any]]] = []
    flops: dict[str, float] = {}
    for run in range(1, runs + 1):
        measured.append([])
        for work in works:
            report(f'run {run} of {runs}: {work.title}')
            out = scratch / f'{work.name}-{run}'
            found = _measure(work, threads, keep_memory, out)
            machine = found['machine']
            # A work has the precisions of its own cases.
            flops |= machine['matmul_flops']
            measured[-1] += [
                dict(work=work.name, **{key: result[key] for key in _KEPT})
                for result in found['results']
            ]
    machine.pop('rounds')
    machine['matmul_flops'] = flops
    record = dict(
        version=mmtransxnet.__version__, machine=machine, runs=measured
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(record)
    write_safely(path, (json.dumps(record, indent=1) + '\n').encode())
    return path


def _measure(
    work: Work, threads: int, keep_memory: bool, out: Path
) -> dict[str, Any]:
    """What speed.py writes; its tables are printed."""
    words = ['--shapes', work.shape, '--modes', work.mode]
    words += ['--rounds', str(work.rounds), '--threads', str(threads)]
    words += ['--out', str(out), '--cases', *work.cases]
    if not work.memory:
        words.append('--no-memory')
    if keep_memory:
        words.append('--keep-memory')
    done = subprocess.run([sys.executable, str(_SPEED), *words])
    if done.returncode:
        raise UserError(
            f'{work.title}: speed.py ended with status {done.returncode}; '
            'nothing is written. The messages above say why (-9: not enough '
            'memory); --works measures a part of the table'
        )
    return json.loads((out / 'speed.json').read_text())

"""Run and time a sequence of tools as a user would."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from mmtransxnet.benchmark.progress import Display
from mmtransxnet.utils.paths import ROOT

PRETRAINING = 'configs/classification/transxnet_t_digits.py'

# Lines of the log that are shown if a tool fails.
_LAST = 30


class Steps:
    """A sequence of tools that stops at the first failure.

    The tools run in the current folder. What they print goes to ``log.txt``;
    the terminal shows the commands and how far they are.

    Args:
        folder: Folder for the log and the runs.
        options: ``--cfg-options`` of all trainings.

    Attributes:
        minutes: Wall time of each step.
        log: The file with all output.
    """

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = folder
        self.options = options
        self.console = Console(highlight=False)
        self.minutes: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / 'log.txt'
        self.log.write_bytes(b'')

    def run(
        self, step: str, tool: str, *arguments: str, comes: str = ''
    ) -> None:
        """Run a tool; exit with its status if it fails.

        Args:
            step: Name of the step.
            tool: File below ``tools/``.
            arguments: Of the tool.
            comes: What it does and how long it takes, for the terminal.
        """
        path = os.path.relpath(ROOT / 'tools' / tool)
        if path.startswith('..'):
            path = str(ROOT / 'tools' / tool)
        self.console.print(f'\n[bold]{step}[/]: {comes}'.rstrip(': '))
        shown = shlex.join(['python', path, *arguments])
        self.console.print(f'$ {shown}', soft_wrap=True, style='dim')
        start = time.monotonic()
        last: deque[str] = deque(maxlen=_LAST)
        with (
            self.log.open('a', encoding='utf-8') as log,
            Display(self.console) as display,
        ):
            log.write(f'$ {shown}\n')
            process = subprocess.Popen(
                [sys.executable, path, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
            )
            assert process.stdout is not None
            display.follow(_copied(process.stdout, log, last))
            status = process.wait()
        if status:
            sys.stderr.write(''.join(last))
            sys.exit(f'error: {step} ended with {status}; all: {self.log}')
        self.minutes[step] = (time.monotonic() - start) / 60
        self.console.print(f'done in {self.minutes[step]:.1f} min')

    def train(
        self, step: str, config: str, *options: str, comes: str = ''
    ) -> str:
        """Train a config and return its last checkpoint."""
        work_dir = self.folder / Path(config).stem
        arguments = [config, '--work-dir', str(work_dir)]
        options = (*self.options, *options)
        if options:
            arguments += ['--cfg-options', *options]
        self.run(step, 'train.py', *arguments, comes=comes)
        return (work_dir / 'last_checkpoint').read_text().strip()

    def test(
        self,
        step: str,
        config: str,
        checkpoint: str,
        *flags: str,
        comes: str = '',
    ) -> dict[str, float]:
        """Evaluate a checkpoint; return the metrics."""
        work_dir = self.folder / f'{Path(config).stem}_test'
        self.run(
            step,
            'test.py',
            config,
            checkpoint,
            '--work-dir',
            str(work_dir),
            *flags,
            comes=comes,
        )
        latest = max(
            work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime
        )
        return json.loads(latest.read_text())


def _copied(lines: IO[str], log: IO[str], last: deque[str]) -> Iterator[str]:
    """The lines, each written to the log first."""
    for line in lines:
        log.write(line)
        log.flush()
        last.append(line)
        yield line

"""Run and time a sequence of tools as a user would."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

PRETRAINING = 'configs/classification/transxnet_t_digits.py'


class Steps:
    """A sequence of tools that stops at the first failure.

    Args:
        root: Folder that has ``tools/`` and ``configs/``.
        folder: Folder for logs and checkpoints.
        options: ``--cfg-options`` of all trainings.

    Attributes:
        minutes: Wall time of each step.
    """

    def __init__(self, root: Path, folder: Path, options: list[str]) -> None:
        self.root = root
        self.folder = folder
        self.options = options
        self.console = Console()
        self.minutes: dict[str, float] = {}

    def run(self, step: str, tool: str, *arguments: str) -> None:
        """Run a tool; exit with its status if it fails."""
        command = [sys.executable, f'tools/{tool}', *arguments]
        self.console.rule(f'[bold]{step}')
        self.console.print(
            '$', shlex.join(['python', *command[1:]]), soft_wrap=True
        )
        start = time.monotonic()
        status = subprocess.run(command, cwd=self.root).returncode
        if status:
            sys.exit(status)
        self.minutes[step] = (time.monotonic() - start) / 60

    def train(self, step: str, config: str, *options: str) -> str:
        """Train a config and return its last checkpoint."""
        work_dir = self.folder / Path(config).stem
        arguments = [config, '--work-dir', str(work_dir)]
        options = (*self.options, *options)
        if options:
            arguments += ['--cfg-options', *options]
        self.run(step, 'train.py', *arguments)
        return (work_dir / 'last_checkpoint').read_text().strip()

    def test(
        self, step: str, config: str, checkpoint: str, *flags: str
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
        )
        latest = max(
            work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime
        )
        return json.loads(latest.read_text())

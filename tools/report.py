"""One HTML page about a training run: did it work, and where not."""

import argparse
import time
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from mmtransxnet.engine import UserError, report_user_errors
from mmtransxnet.engine.config.options import OptionsAction
from mmtransxnet.report.build import build_report
from mmtransxnet.report.page import figure
from mmtransxnet.report.run import read_run
from mmtransxnet.utils.allocator import keep_freed_memory

# Where there is no terminal, a line is printed this often, in seconds.
INTERVAL = 30


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='work directory of tools/train.py')
    parser.add_argument(
        '--out', help='the page; WORK_DIR/report.html if not set'
    )
    parser.add_argument(
        '--checkpoint',
        help='evaluate this file; by default the best, else the last',
    )
    parser.add_argument('--data-root', help='where the data is now')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='override the config: key=value, key="[a,b]"',
    )
    return parser.parse_args()


class Bar:
    """Shows how far the evaluation is."""

    def __init__(self, console: Console) -> None:
        columns = Progress.get_default_columns()
        self._console = console
        self._progress = Progress(
            *columns,
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task('evaluation', total=None)
        self._last = time.monotonic()

    def __enter__(self) -> 'Bar':
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Take the numbers of done and of all batches."""
        self._progress.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last > INTERVAL:
            self._last = now
            self._console.print(f'evaluation: {done} of {total} batches')


def main() -> None:
    """Read the run, evaluate it, write the page."""
    args = parse_args()
    console = Console(highlight=False, soft_wrap=True)
    with report_user_errors():
        out = Path(args.out or Path(args.work_dir) / 'report.html')
        if out.suffix != '.html':
            raise UserError(f'--out {out} must end in .html')
        keep_freed_memory()
        run = read_run(
            args.work_dir, args.checkpoint, args.cfg_options, args.data_root
        )
        if run.checkpoint:
            console.print(f'evaluates {run.chosen}', markup=False)
        with Bar(console) as bar:
            found, notes = build_report(run, out, bar.show)
        for name, value in (found.metrics if found else {}).items():
            console.print(f'  {name} {figure(value)}', markup=False)
        for note in [*notes, *run.notes, *(found.notes if found else [])]:
            console.print(f'note: {note}', markup=False)
        size = out.stat().st_size / 1e6
        console.print(f'{out} ({size:.1f} MB)', markup=False)


if __name__ == '__main__':
    main()

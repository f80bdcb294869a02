"""Run the four commands of docs/own_data.md on each kind of data.

The embedded digits are written in each layout that tools/new_config.py reads.
The configs are trained with a small network and few iterations, from a
classifier of the class folders, which is trained first. Known kinds are not
repeated, so the command can be stopped and restarted at any time. Then write
down what was measured, from which `make tables` makes the table of
docs/own_data.md:

    python tools/benchmark/own_data.py --folder work_dirs/own_data
    python tools/benchmark/own_data.py --folder work_dirs/own_data --record
"""

import argparse
from functools import partial
from pathlib import Path

from mmtransxnet.benchmark.experiments.own_data import (
    build_digits,
    list_trials,
    measure,
)
from mmtransxnet.benchmark.experiments.results import write_own_data
from mmtransxnet.benchmark.experiments.trials import describe, run_trials
from mmtransxnet.benchmark.own_kinds import KINDS
from mmtransxnet.benchmark.pipeline import Steps
from mmtransxnet.engine import report_user_errors
from mmtransxnet.own_data.reading import read

RECORD = (
    Path(__file__).parents[2] / 'docs/benchmarks/experiments/own_data.json'
)


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('--folder', type=Path, default='work_dirs/own_data')
    add('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    add('--minutes', type=float, help='start no training after this time')
    add(
        '--record',
        nargs='?',
        type=Path,
        const=RECORD,
        help=f'write down what was measured (default: {RECORD.name})',
    )
    return parser.parse_args()


def found_and_lost(data: Path, task: str) -> dict[str, str]:
    """What was read, and what was not taken over, in words."""
    collection = read(data, task)
    objects = sum(len(p.objects) for p in collection.pictures)
    found = f'{len(collection.pictures):,} pictures'
    if objects:
        found += f', {objects:,} objects'
    found += f', {len(collection.classes)} classes'
    lost = '; '.join(
        f'{count:,} x {reason}'
        for reason, count in collection.dropped.most_common()
    )
    return dict(found=found, lost=lost or 'nothing')


def run(args: argparse.Namespace) -> None:
    """Train what is missing, or write down what was measured."""
    if args.record:
        write_own_data(args.folder, args.record, describe())
        return
    steps = Steps(args.folder.resolve(), [])
    build_digits(steps)
    run_trials(
        list_trials(args.kinds),
        args.folder / 'trials.jsonl',
        partial(measure, steps=steps, look=found_and_lost),
        partial(steps.console.print, markup=False, soft_wrap=True),
        args.minutes,
    )


def main() -> None:
    """Run, reporting user errors in one line."""
    args = parse_args()
    with report_user_errors():
        run(args)


if __name__ == '__main__':
    main()

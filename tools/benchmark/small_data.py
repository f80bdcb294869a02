"""Measure what pretraining, freezing and layer-wise rates are worth.

Adapts models that are pretrained on the embedded digits to 10, 50 and 200
pictures of printed letters. Known trials are not repeated, so the command can
be stopped and restarted at any time. Then write down what was measured, from
which `make tables` makes the tables of docs/small_data.md:

    python tools/benchmark/small_data.py --out work_dirs/small_data
    python tools/benchmark/small_data.py --out work_dirs/small_data --record
"""

import argparse
import os
from functools import partial
from pathlib import Path

from rich.console import Console

from mmtransxnet.benchmark.experiments.letters import build_letters
from mmtransxnet.benchmark.experiments.results import write_small_data
from mmtransxnet.benchmark.experiments.small_data import (
    TASKS,
    list_trials,
    measure,
)
from mmtransxnet.benchmark.experiments.trials import describe, run_trials
from mmtransxnet.engine import report_user_errors

RECORD = (
    Path(__file__).parents[2] / 'docs/benchmarks/experiments/small_data.json'
)


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'tasks',
        nargs='*',
        metavar='TASK',
        help=f'what to measure (default: all of {", ".join(TASKS)})',
    )
    parser.add_argument('--out', type=Path, default='work_dirs/small_data')
    parser.add_argument(
        '--digits',
        type=Path,
        default=os.environ.get('DIGITS_ROOT', 'data/digits'),
        help='root of the embedded digits',
    )
    parser.add_argument('--seeds', type=int, default=3, choices=(1, 2, 3))
    parser.add_argument(
        '--minutes', type=float, help='start no training after this time'
    )
    parser.add_argument(
        '--record',
        nargs='?',
        type=Path,
        const=RECORD,
        help=f'write down what was measured (default: {RECORD.name})',
    )
    args = parser.parse_args()
    unknown = [task for task in args.tasks if task not in TASKS]
    if unknown:
        parser.error(f'{unknown[0]} is not one of {", ".join(TASKS)}')
    return args


def run(args: argparse.Namespace) -> None:
    """Train what is missing, or write down what was measured."""
    if args.record:
        write_small_data(args.out, args.record, describe())
        return
    console = Console(soft_wrap=True)
    letters = args.out / 'letters'
    build_letters(letters)
    run_trials(
        list_trials(args.tasks or list(TASKS), args.seeds),
        args.out / 'trials.jsonl',
        partial(measure, folder=args.out, digits=args.digits, letters=letters),
        partial(console.print, markup=False, highlight=False),
        args.minutes,
    )


def main() -> None:
    """Run, reporting user errors in one line."""
    args = parse_args()
    with report_user_errors():
        run(args)


if __name__ == '__main__':
    main()

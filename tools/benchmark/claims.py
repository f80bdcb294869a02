"""Measure what each part of the network is worth on the embedded digits.

Trains the network without one part at a time, several seeds each, from
scratch. Known trials are not repeated, so the command can be stopped and
restarted at any time. Then measure more of the same networks, and write down
all of it, from which `make tables` makes the table of docs/claims.md:

    python tools/benchmark/claims.py --out work_dirs/claims
    python tools/benchmark/claims.py --out work_dirs/claims --erf
    python tools/benchmark/claims.py --out work_dirs/claims --speed
    python tools/benchmark/claims.py --out work_dirs/claims --record
"""

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

from mmtransxnet.benchmark.experiments.claims import (
    list_erf_trials,
    list_speed_trials,
    list_trials,
    measure,
    measure_erf,
    measure_speed,
)
from mmtransxnet.benchmark.experiments.results import write_claims
from mmtransxnet.benchmark.experiments.trials import describe, run_trials
from mmtransxnet.engine import report_user_errors

RECORD = Path(__file__).parents[2] / 'docs/benchmarks/experiments/claims.json'


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--out', type=Path, default='work_dirs/claims')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--rounds', type=int, default=5, help='of --speed')
    parser.add_argument(
        '--minutes', type=float, help='start no trial after this time'
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        '--erf',
        action='store_true',
        help='measure the receptive field of the trained networks',
    )
    step.add_argument(
        '--speed',
        action='store_true',
        help='measure the inference of TransXNet-T; on an idle machine',
    )
    step.add_argument(
        '--record',
        nargs='?',
        type=Path,
        const=RECORD,
        help=f'write down what was measured (default: {RECORD.name})',
    )
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, or write it down."""
    if args.record:
        write_claims(args.out, args.record, describe())
        return
    if args.erf:
        trials, name = list_erf_trials(args.seeds), 'erf'
        work = partial(measure_erf, folder=args.out)
    elif args.speed:
        trials, name = list_speed_trials(args.rounds), 'speed'
        work = measure_speed
    else:
        trials, name = list_trials(args.seeds), 'trials'
        work = partial(measure, folder=args.out)
    report = partial(
        Console(soft_wrap=True).print, markup=False, highlight=False
    )
    path = args.out / f'{name}.jsonl'
    run_trials(trials, path, work, report, args.minutes)


def main() -> None:
    """Run, reporting user errors in one line."""
    args = parse_args()
    with report_user_errors():
        run(args)


if __name__ == '__main__':
    main()

"""Measure the standard table and keep it for this machine and version.

Several runs of speed.py for TransXNet-T, ConvNeXt-T and the published formula,
at 224 x 224 and 800 x 1216, inference and training. The figures go to
docs/benchmarks, of which `make tables` makes the tables of the docs. The
settings of allocator and threads are those of the environment; settings other
than the default become part of the file's name.

    python tools/benchmark/bench.py --runs 3
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from mmtransxnet.benchmark.speed.bench import bench, expected_minutes
from mmtransxnet.benchmark.speed.machine import matmul_peak
from mmtransxnet.benchmark.speed.standard import STANDARD
from mmtransxnet.engine import report_user_errors
from mmtransxnet.utils.paths import ROOT


def parse_args() -> argparse.Namespace:
    """Read how often and what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [work.name for work in STANDARD]
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument(
        '--works',
        nargs='+',
        choices=names,
        default=names,
        help='a part of the table: training-800 and maskrcnn-800 need\n'
        '16 GB of memory for the published formula',
    )
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument(
        '--keep-memory',
        action='store_true',
        help='keep freed memory, as train.py, test.py and infer.py do',
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs' / 'benchmarks'
    )
    args = parser.parse_args()
    if args.runs < 1:
        parser.error('--runs must be at least 1')
    return args


def main() -> None:
    """Measure; say beforehand how long it takes."""
    args = parse_args()
    works = [work for work in STANDARD if work.name in args.works]
    torch.set_num_threads(args.threads)
    minutes = expected_minutes(works, args.runs, matmul_peak('fp32', 'cpu'))
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f'runs: {args.runs}; expected: {minutes:.0f} minutes, by the speed of '
        'matrix products on this machine without other load'
    )
    with report_user_errors():
        path = bench(
            works,
            args.runs,
            args.threads,
            args.keep_memory,
            scratch=Path('work_dirs/bench'),
            folder=args.out,
            report=console.print,
        )
    console.print(f'{path}; now `make tables`')


if __name__ == '__main__':
    main()

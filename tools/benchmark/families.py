"""Train a step of one model of each family of mmdet, mmseg and mmpretrain.

Each is tried twice: as its library ships it, with a prediction, and with
TransXNet-T in place of its backbone. Known results are not repeated, so the
command can be stopped and restarted at any time.

    python tools/benchmark/families.py --out work_dirs/families
    python tools/benchmark/families.py --table docs/families.md
"""

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

import mmtransxnet
from mmtransxnet.benchmark.families.tables import versions, write_tables
from mmtransxnet.benchmark.families.walk import select, try_all
from mmtransxnet.benchmark.families.zoo import LIBRARIES, import_library
from mmtransxnet.engine import report_user_errors


def parse_args() -> argparse.Namespace:
    """Read what to try."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'names',
        nargs='*',
        metavar='LIBRARY[/FAMILY]',
        help=f'what to try (default: all of {", ".join(LIBRARIES)})',
    )
    parser.add_argument('--out', type=Path, default='work_dirs/families')
    parser.add_argument(
        '--again', action='store_true', help='repeat known ones'
    )
    parser.add_argument(
        '--minutes', type=float, help='start no trial after this time'
    )
    parser.add_argument(
        '--limit', type=float, default=240, help='seconds for a family'
    )
    parser.add_argument(
        '--memory', type=float, default=12, help='GiB for a family'
    )
    parser.add_argument(
        '--table', type=Path, help='only write the tables of this page'
    )
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Try, print and keep the results, or write them into a page."""
    if args.table:
        write_tables(args.table, args.out)
        return
    families = select(args.names)
    console = Console(soft_wrap=True)
    # Imported before the trials, which are forks.
    for library in LIBRARIES:
        import_library(library)
    console.print(f'mmtransxnet {mmtransxnet.__version__},', *versions())
    try_all(
        families,
        args.out,
        again=args.again,
        minutes=args.minutes,
        limit=args.limit,
        memory=args.memory,
        report=partial(console.print, markup=False, highlight=False),
    )


def main() -> None:
    """Run, reporting user errors in one line."""
    args = parse_args()
    with report_user_errors():
        run(args)


if __name__ == '__main__':
    main()

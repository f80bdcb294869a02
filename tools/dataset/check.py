"""Check in seconds whether the data of a config is complete.

With --deep, find corrupt pictures and annotations in minutes.
"""

import argparse
import os
import sys

from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmtransxnet.engine import (
    config_parser,
    inspect_layout,
    load_config,
    report_user_errors,
)
from mmtransxnet.engine.checks.deep_check import DeepCheck


def parse_args() -> argparse.Namespace:
    """Read which config to check, and how thoroughly."""
    parser = config_parser(__doc__)
    parser.add_argument(
        '--deep',
        action='store_true',
        help='decode every picture and label map, check every box',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        help='processes for --deep; one per core if not set',
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers {args.workers}: at least 1 is needed')
    return args


def check_layout(config: Config, name: str) -> list[str]:
    """Print a table of the splits; return all problems and notes."""
    reports = inspect_layout(config, ['train', 'val', 'test'])
    table = Table(title=name)
    for column in ('split', 'folder', 'pictures', 'published', 'state'):
        table.add_column(column, overflow='fold')
    for report in reports:
        state = 'not checked' if report.unchecked else 'good'
        if report.problems or report.notes:
            state = 'see below'
        table.add_row(
            report.split,
            str(report.folder),
            f'{report.images:,}',
            f'{report.expected:,}' if report.expected else '',
            state,
        )
    Console().print(table)
    for report in reports:
        if report.unchecked:
            print(f'{report.split} data, not checked: {report.unchecked}')
    return [line for r in reports for line in (*r.problems, *r.notes)]


def check_deep(config: Config, workers: int) -> list[str]:
    """Check all samples with a progress bar; return what is bad."""
    check = DeepCheck(config)
    verdicts = track(
        check.run(workers),
        'checking',
        total=len(check.samples),
        console=Console(stderr=True),
    )
    bad = [*check.problems, *filter(None, verdicts)]
    for line in check.unchecked:
        print(line)
    print(f'{len(check.samples):,} pictures checked, {len(bad):,} bad')
    return bad


def main() -> None:
    """Print all problems; exit with status 1 if there are any."""
    args = parse_args()
    with report_user_errors():
        config = load_config(args.config, args.cfg_options, args.data_root)
        complaints = check_layout(config, args.config)
        bad = check_deep(config, args.workers) if args.deep else []
    for complaint in dict.fromkeys([*complaints, *bad]):
        print(complaint)
    if complaints:
        sys.exit(f'error: {config.get("data_remedy", "fix data_root")}')
    if bad:
        sys.exit(
            'error: fix the bad files, or train with bad_data.policy=skip'
        )


if __name__ == '__main__':
    main()

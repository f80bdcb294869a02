"""Write a config for a folder of your own data: look, decide, explain.

    python tools/new_config.py my_data/ --out my_configs/trees.py

writes my_configs/trees.py and my_configs/trees_data/ (lists, converted
annotations, overview.png). The data itself is not changed.
docs/own_data.md describes what is read and how it is decided.
"""

import argparse
import os
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.progress import track

from mmtransxnet.engine import load_config, report_user_errors
from mmtransxnet.engine.checks.deep_check import DeepCheck
from mmtransxnet.own_data.collection import Prepared
from mmtransxnet.own_data.decisions import Decisions, decide
from mmtransxnet.own_data.output import Output
from mmtransxnet.own_data.overview import decisions_table, overview_tables
from mmtransxnet.own_data.overview_picture import draw_overview
from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import TASKS, read
from mmtransxnet.own_data.recipes import ALGORITHMS, ARCHS
from mmtransxnet.own_data.write_config import write_config


def parse_args() -> argparse.Namespace:
    """Read the data, the config and what is decided by hand."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('data', type=Path, help='folder of pictures and annotations')
    add('--out', type=Path, required=True, help='config to write (FILE.py)')
    add(
        '--task',
        choices=TASKS,
        help='where the data could be read for several',
    )
    add('--algorithm', choices=ALGORITHMS, help='chosen by task if not set')
    add('--arch', choices=ARCHS, help='size of the backbone (t)')
    add('--batch-size', type=_count, help='chosen by size if not set')
    add(
        '--from-scratch',
        action='store_true',
        help='start from no pretrained weights',
    )
    add(
        '--seed',
        type=_seed,
        default=0,
        help='of the split, if the data has none (0)',
    )
    add(
        '--tile',
        type=_count,
        metavar='N',
        help='cut the pictures into overlapping tiles of N x N pixels',
    )
    add('--overwrite', action='store_true', help='replace what --out has')
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text}: at least 1 is needed')
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f'{text}: at least 0 is needed')
    return number


def look_and_decide(args: argparse.Namespace, output: Output) -> None:
    """Read, convert, decide, write, and show all of it."""
    console = Console()
    if not console.is_terminal:
        console.width = 110  # of a file; needed by the tables
    prepared = prepare(
        read(args.data, task=args.task),
        output.folder,
        seed=args.seed,
        tile=args.tile,
    )
    made = decide(
        prepared,
        algorithm=args.algorithm,
        arch=args.arch,
        batch_size=args.batch_size,
        from_scratch=args.from_scratch,
    )
    write_config(prepared, made, output.config)
    draw_overview(prepared, output.overview)
    broken = check(output.config)
    show(console, prepared, made, broken)
    for path in (output.config, output.overview):
        console.print(f'wrote {path}', soft_wrap=True, highlight=False)


def check(path: Path) -> list[str]:
    """Check every file that the config reads."""
    config = load_config(str(path))
    # pycocotools prints what it does.
    with redirect_stdout(None):
        deep = DeepCheck(config)
    verdicts = track(
        deep.run(os.cpu_count() or 1),
        'checking',
        total=len(deep.samples),
        console=Console(stderr=True),
        transient=True,
    )
    return [*deep.problems, *deep.unchecked, *filter(None, verdicts)]


def show(
    console: Console, prepared: Prepared, made: Decisions, broken: list[str]
) -> None:
    """Print what was found and decided."""
    for table in [*overview_tables(prepared, broken), decisions_table(made)]:
        console.print(table)
    for line in broken:
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    if broken:
        console.print(
            'fix these files, or train without them: --cfg-options '
            'bad_data.policy=skip',
            highlight=False,
        )


def main() -> None:
    """Write the config; leave nothing behind after an error."""
    args = parse_args()
    with report_user_errors():
        output = Output(args.out, args.data, args.overwrite)
        with output.complete_or_removed():
            look_and_decide(args, output)
    print(f'look at {output.overview}, then')
    print(f'    python tools/train.py {args.out}')


if __name__ == '__main__':
    main()

"""Build the digits set: detection, segmentation and classification data.

Usage: python tools/dataset/build_digits.py [--preview sheet.png]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mmtransxnet.datasets import DigitsSet, build_digits
from mmtransxnet.datasets.digits.preview import contact_sheet


def parse_args() -> argparse.Namespace:
    """Read the command line; options are named as in build_digits."""
    parser = argparse.ArgumentParser(
        description='Build the digits set: handwritten digits on '
        'photographs in COCO, ADE20K and ImageNet layout, without a '
        'download.'
    )
    add = parser.add_argument
    add('--root', default='data/digits', help='folder (%(default)s)')
    add('--size', type=int, help='side of a scene in pixels (%(default)s)')
    add(
        '--train',
        type=int,
        dest='train_images',
        metavar='N',
        help='number of training scenes (%(default)s)',
    )
    add(
        '--val',
        type=int,
        dest='val_images',
        metavar='N',
        help='number of validation scenes (%(default)s)',
    )
    add(
        '--renderings',
        type=int,
        metavar='N',
        help='single pictures of each training digit (%(default)s)',
    )
    add(
        '--single-size',
        type=int,
        help='side of a single picture in pixels (two fifths of SIZE)',
    )
    add('--seed', type=int, help='seed of all randomness (%(default)s)')
    add('--force', action='store_true', help='replace an existing set')
    add(
        '--preview',
        metavar='PNG',
        help='also draw pictures and their annotations on a sheet',
    )
    parser.set_defaults(**(build_digits.__kwdefaults__ or {}))
    return parser.parse_args()


def build(options: dict[str, Any], console: Console) -> DigitsSet:
    """Build the set with a progress bar."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task('Drawing', total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return build_digits(**{**options, 'progress': advance})


def summary(digits: DigitsSet) -> Table:
    """Numbers of pictures per split."""
    table = Table('split', 'scenes', 'instances', 'singles')
    for split, counts in digits.counts.items():
        row = (counts[key] for key in ('scenes', 'instances', 'singles'))
        table.add_row(split, *map(str, row))
    return table


def main() -> int:
    """Build, summarise, and draw a preview if asked."""
    options = vars(parse_args())
    preview = options.pop('preview')
    console = Console()
    try:
        digits = build(options, console)
        if preview:
            contact_sheet(digits.root).save(preview)
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    console.print(summary(digits))
    state = 'Built' if digits.built else 'Already there:'
    console.print(f'{state} {digits.root}', soft_wrap=True, highlight=False)
    if preview:
        path = Path(preview).resolve()
        console.print(f'Preview {path}', soft_wrap=True, highlight=False)
    return 0


if __name__ == '__main__':
    sys.exit(main())

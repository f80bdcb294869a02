r"""Measure whether class activation lies on what a detector finds.

    python tools/analysis/pointing_game.py CONFIG CHECKPOINT PICTURES \
        --out hits.jsonl

Of each detection, the share of the energy of Grad-CAM and of Eigen-CAM inside
its box, for each stage, with the trained weights and with random ones. See
docs/analysis.md.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmtransxnet.analysis.cam import METHODS
from mmtransxnet.analysis.observation import run_stages
from mmtransxnet.analysis.pointing_game import MIN_SCORE, Hit, play
from mmtransxnet.apis.analysis import (
    analysis_parser,
    check_out,
    find_pictures,
    open_model,
    read_pictures,
)
from mmtransxnet.engine import UserError, report_user_errors
from mmtransxnet.utils.build import build_model

TITLES = {'grad-cam': 'Grad-CAM', 'eigen-cam': 'Eigen-CAM'}


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = analysis_parser(__doc__, 'the JSON Lines file to write')
    parser.add_argument(
        'pictures', nargs='+', help='pictures or folders of them'
    )
    parser.add_argument(
        '--number',
        type=int,
        metavar='N',
        help='use the first N pictures (all)',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=MIN_SCORE,
        help='minimum score of the detections (%(default)s)',
    )
    parser.add_argument(
        '--stage',
        type=int,
        nargs='+',
        choices=(1, 2, 3, 4),
        help='stages whose outputs are used (all)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of random weights (%(default)s)'
    )
    args = parser.parse_args()
    if args.number is not None and args.number < 1:
        parser.error('--number must be at least 1')
    return args


def measure(args: argparse.Namespace) -> Iterator[Hit]:
    """All results; each is written to the file when it is known."""
    files = find_pictures(args.pictures)[: args.number]
    config, inferencer = open_model(args)
    model = inferencer.model
    torch.manual_seed(args.seed)
    random = build_model(config).state_dict()
    stages = [s - 1 for s in args.stage or []] or run_stages(model)
    # One after another: a whole data set would not fit into memory.
    data = (inferencer.prepare(*read_pictures([file])) for file in files)
    shown = track(data, 'pictures', len(files), console=Console(stderr=True))
    with open(args.out, 'w', encoding='utf-8') as file:
        for hit in play(model, shown, stages, random, args.min_score):
            file.write(json.dumps(asdict(hit)) + '\n')
            file.flush()
            yield hit


def tabulate(hits: Sequence[Hit]) -> Table:
    """Means over the detections."""
    pictures = len({hit.picture for hit in hits})
    detections = len({(hit.picture, hit.detection) for hit in hits})
    table = Table(
        title=f'Energy of the map in the box (maximum in the box), means of '
        f'{detections} detections in {pictures} pictures'
    )
    table.add_column('map', overflow='fold')
    stages = sorted({hit.stage for hit in hits})
    for stage in stages:
        table.add_column(f'stage {stage + 1}', justify='right')
    for random in (False, True):
        for method in METHODS:
            name = TITLES[method] + (', random weights' if random else '')
            cells = []
            for stage in stages:
                of = (random, method, stage)
                cells.append(
                    means(
                        h for h in hits if (h.random, h.method, h.stage) == of
                    )
                )
            table.add_row(name, *cells)
    area = np.mean([hit.area for hit in hits])
    table.add_row('equal everywhere', *[f'{area:.1%}'] * len(stages))
    return table


def means(hits: Iterable[Hit]) -> str:
    """Mean energy, and share of the maps whose maximum is in the box."""
    chosen = list(hits)
    # A map that is 0 everywhere has nothing in the box.
    energy = np.mean([np.nan_to_num(hit.energy) for hit in chosen])
    return f'{energy:.1%} ({np.mean([h.maximum for h in chosen]):.0%})'


def main() -> None:
    """Measure, write and print the table."""
    args = parse_args()
    console = Console()
    with report_user_errors():
        check_out(args.out, args.pictures)
        hits = list(measure(args))
        if not hits:
            raise UserError(
                f'no detection with a score of {args.min_score} and more'
            )
    console.print(tabulate(hits))
    console.print(args.out, soft_wrap=True)


if __name__ == '__main__':
    main()

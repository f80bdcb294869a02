"""Measure and draw the effective receptive field of each stage.

    python tools/analysis/erf.py CONFIG CHECKPOINT [PICTURES] --out erf.png

The trained model is compared with a randomly initialised one, and with models
of timm (--peers), all with the same pictures. See docs/analysis.md.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
import torch
from rich.console import Console
from rich.table import Table

from mmtransxnet.analysis.drawing import draw_fields
from mmtransxnet.analysis.erf import (
    SHARES,
    SIZE,
    Field,
    create_peer,
    model_fields,
    peer_fields,
)
from mmtransxnet.apis.analysis import (
    analysis_parser,
    check_out,
    open_model,
    read_pictures,
)
from mmtransxnet.engine import report_user_errors
from mmtransxnet.utils.build import build_model
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = analysis_parser(__doc__)
    parser.add_argument(
        'pictures',
        nargs='*',
        help='pictures or folders of them; photographs of scikit-image if '
        'none is given',
    )
    parser.add_argument(
        '--number',
        type=int,
        default=4,
        metavar='N',
        help='use the first N pictures (%(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=SIZE,
        help='side of the pictures in pixels (%(default)s)',
    )
    parser.add_argument(
        '--peers',
        nargs='+',
        default=[],
        metavar='NAME[=WEIGHTS]',
        help='models of timm to compare with, such as convnext_tiny, '
        'swin_tiny or resnet50; random weights unless a file is given',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of random weights (%(default)s)'
    )
    args = parser.parse_args()
    if args.number < 1:
        parser.error('--number must be at least 1')
    return args


def measure(args: argparse.Namespace) -> Iterator[tuple[str, list[Field]]]:
    """Yield the name and the fields of each network."""
    pictures = read_pictures(args.pictures, args.number)
    config, inferencer = open_model(args)
    model = inferencer.model
    device = next(model.parameters()).device
    peers = [build_peer(peer, args.size, args.seed) for peer in args.peers]
    torch.manual_seed(args.seed)
    untrained = build_model(config).to(device)
    yield (
        'random initialisation',
        model_fields(untrained, pictures, args.size),
    )
    yield (
        Path(args.checkpoint).name,
        model_fields(model, pictures, args.size),
    )
    for name, peer in peers:
        yield (
            name,
            peer_fields(peer.to(device), pictures, args.size),
        )


def build_peer(text: str, size: int, seed: int) -> tuple[str, torch.nn.Module]:
    """Build the model of ``NAME`` or ``NAME=WEIGHTS``."""
    torch.manual_seed(seed)
    name, _, weights = text.partition('=')
    if not weights:
        return f'{name} (random weights)', create_peer(name, size)
    state = state_dict_of(read_checkpoint(weights))
    return f'{name} ({Path(weights).name})', create_peer(name, size, state)


def tabulate(networks: dict[str, list[Field]], size: int) -> Table:
    """The squares of all fields."""
    table = Table(
        title='Side in pixels of the smallest centred square with a share of '
        f'the contribution, and its part of the {size} x {size} pixels'
    )
    table.add_column('network', overflow='fold')
    table.add_column('stage', overflow='fold')
    for share in SHARES:
        table.add_column(f'{share:.0%}', justify='right')
    for name, fields in networks.items():
        for field in fields:
            cells = [
                f'{square.side} ({square.area:.2%})'
                for square in field.squares()
            ]
            shown = name if field is fields[0] else ''
            table.add_row(shown, field.stage, *cells)
        table.add_section()
    return table


def main() -> None:
    """Measure, print the table and draw."""
    args = parse_args()
    console = Console()
    networks = {}
    with report_user_errors():
        check_out(args.out, args.pictures)
        for name, fields in measure(args):
            console.print(f'{name}: measured', markup=False, highlight=False)
            networks[name] = fields
        draw_fields(networks, args.out)
    console.print(tabulate(networks, args.size))
    console.print(args.out, soft_wrap=True)


if __name__ == '__main__':
    main()

"""Draw what a model makes for one picture: kernels, attention, scales.

    python tools/analysis/dynamics.py CONFIG CHECKPOINT PICTURES --out FOLDER

Of the first picture: IDConv's kernels, the attention of a pixel, MS-FFN's
scales. Of three and more: how much the kernels differ. The folders of the
pictures are their classes if there are several. See docs/analysis.md.
"""

import argparse
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
import numpy as np
from rich.console import Console

from mmtransxnet.analysis.drawing import (
    draw_attention,
    draw_kernels,
    draw_scales,
    draw_spread,
)
from mmtransxnet.analysis.dynamics import observe_each
from mmtransxnet.apis.analysis import (
    analysis_parser,
    find_pictures,
    open_model,
    read_pictures,
)
from mmtransxnet.engine import check_folder, report_user_errors


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = analysis_parser(__doc__, 'the folder for the PNGs')
    parser.add_argument(
        'pictures', nargs='+', help='pictures or folders of them'
    )
    parser.add_argument(
        '--pixel',
        type=float,
        nargs=2,
        default=(0.5, 0.5),
        metavar=('X', 'Y'),
        help='the pixel whose attention is drawn, as shares of width and '
        'height from the upper left corner (0.5 0.5)',
    )
    args = parser.parse_args()
    if not all(0 <= share <= 1 for share in args.pixel):
        parser.error('--pixel takes two numbers of 0 to 1')
    return args


def draw(args: argparse.Namespace) -> list[Path]:
    """Observe all pictures and draw; return the files."""
    files = find_pictures(args.pictures)
    _, model = open_model(args)
    data = [model.prepare(read_pictures([file])[0]) for file in files]
    observed = observe_each(model.model, data)
    image = data[0]['inputs'][0].permute(1, 2, 0).numpy()
    folder, (x, y) = Path(args.out), args.pixel
    names = ['kernels.png', 'attention.png', 'scales.png']
    draw_kernels(observed[0], folder / names[0])
    draw_attention(
        observed[0], np.ascontiguousarray(image), folder / names[1], x, y
    )
    draw_scales(observed[0], folder / names[2])
    if len(observed) >= 3:
        names.append('spread.png')
        classes = [file.parent.name for file in files]
        several = len(set(classes)) > 1
        draw_spread(observed, folder / names[3], classes if several else None)
    return [folder / name for name in names]


def main() -> None:
    """Observe, draw and print the files."""
    args = parse_args()
    with report_user_errors():
        check_folder(args.out, '--out')
        for path in draw(args):
            Console().print(str(path), soft_wrap=True, highlight=False)


if __name__ == '__main__':
    main()

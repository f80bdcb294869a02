"""Draw where a model looks for a class or a detection.

    python tools/analysis/cam.py CONFIG CHECKPOINT PICTURE --out cam.png

Class activation by Grad-CAM and Eigen-CAM. For a detector, --target is the
rank of a detection (0: the highest score), and its box and its mask are
explained; for a classifier or segmentor it is a class. See docs/analysis.md.
"""

import argparse
from functools import partial

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
import numpy as np
from rich.console import Console

from mmtransxnet.analysis.cam import METHODS, Activation, class_activation
from mmtransxnet.analysis.drawing import draw_activations
from mmtransxnet.analysis.targets import is_detector
from mmtransxnet.apis import Inferencer
from mmtransxnet.apis.analysis import (
    analysis_parser,
    check_out,
    open_model,
    read_pictures,
)
from mmtransxnet.engine import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = analysis_parser(__doc__)
    parser.add_argument('picture', help='a picture')
    parser.add_argument(
        '--target',
        help='name or number of a class, or rank of a detection; default: '
        'what the model predicts',
    )
    parser.add_argument(
        '--method',
        nargs='+',
        choices=METHODS,
        default=['grad-cam'],
        help='one or both (%(default)s)',
    )
    parser.add_argument(
        '--stage',
        type=int,
        nargs='+',
        choices=(1, 2, 3, 4),
        help='stages whose outputs are used (the last; for a detection, the '
        'one with the resolution it was read from)',
    )
    return parser.parse_args()


def wanted(text: str | None, model: Inferencer) -> int | None:
    """The number of the class or detection that ``--target`` names."""
    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    names = model.classes or []
    if text not in names or is_detector(model.model):
        raise UserError(
            f'--target {text!r}: expected a number'
            + (f' or one of {", ".join(names)}' if names else '')
        )
    return names.index(text)


def explain(
    args: argparse.Namespace, model: Inferencer, picture: np.ndarray
) -> list[Activation]:
    """All maps that the flags ask for."""
    compute = partial(
        class_activation,
        model.model,
        model.prepare(picture),
        wanted(args.target, model),
    )
    found = []
    for method in args.method:
        for stage in args.stage or [None]:
            index = None if stage is None else stage - 1
            found.append(compute(index, method))
            target = found[-1].target
            has_mask = target.box is not None and target.mask is not None
            if has_mask and method == 'grad-cam':
                found.append(compute(index, method, 'mask'))
    return found


def main() -> None:
    """Explain and draw."""
    args = parse_args()
    with report_user_errors():
        check_out(args.out, [args.picture])
        (picture,) = read_pictures([args.picture], 1)
        _, model = open_model(args)
        found = explain(args, model, picture)
        draw_activations(picture, found, args.out, model.classes)
    Console().print(args.out, soft_wrap=True)


if __name__ == '__main__':
    main()

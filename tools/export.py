"""Export a trained model into a folder that runs without PyTorch."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
from mmengine.config import Config

from mmtransxnet.apis.inference import dataset_meta
from mmtransxnet.deploy.calibration import calibration_pictures
from mmtransxnet.deploy.export import Request, check_request, export
from mmtransxnet.deploy.formats import FORMATS, PRECISIONS
from mmtransxnet.deploy.layouts import LAYOUTS, check_layout, write_layout
from mmtransxnet.deploy.quantisation import check_loss
from mmtransxnet.engine import (
    UserError,
    build_runner,
    config_parser,
    load_config,
    report_user_errors,
    temporary_work_dir,
)
from mmtransxnet.utils.build import build_model
from mmtransxnet.weights.matching import match_weights
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='folder to write')
    parser.add_argument(
        '--format',
        nargs='+',
        default=list(FORMATS),
        help=f'some of {", ".join(FORMATS)}; all by default',
    )
    parser.add_argument(
        '--precision',
        default='fp32',
        help=f'{", ".join(PRECISIONS)}; formats without it are fp32',
    )
    parser.add_argument(
        '--batch',
        type=batch,
        metavar='N',
        help='images of each call; any number by default',
    )
    parser.add_argument(
        '--size',
        nargs='+',
        metavar='PIXELS',
        default=['dynamic'],
        help='height and width of the images; any size by default',
    )
    parser.add_argument(
        '--calibrate',
        metavar='FOLDER',
        help='pictures for int8; those of the training data by default',
    )
    parser.add_argument(
        '--raw-masks',
        action='store_true',
        help='predict.py returns masks of 28 x 28 instead of pasting them',
    )
    parser.add_argument(
        '--max-loss',
        type=float,
        default=1.0,
        metavar='POINTS',
        help="loss of int8 in points of the config's metric (%(default)s)",
    )
    parser.add_argument(
        '--allow-loss',
        action='store_true',
        help='write an int8 model that loses more',
    )
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        help='also add the model to the model repository --repository',
    )
    parser.add_argument(
        '--repository',
        help='of --layout; the folder models beside --out by default',
    )
    args = parser.parse_args()
    try:
        args.size = size_of(args.size)
    except ValueError as error:
        parser.error(f'argument --size: {error}')
    return args


def batch(text: str) -> int | None:
    """Read ``--batch``."""
    if text == 'dynamic':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f'{text} is not a number of images: give 1 or more, or dynamic'
        )
    return int(text)


def size_of(words: list[str]) -> tuple[int, int] | None:
    """Read ``--size``."""
    if words == ['dynamic']:
        return None
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise ValueError('expected a height and a width, or dynamic')
    height, width = map(int, words)
    if min(height, width) < 32:
        raise ValueError('expected at least 32 pixels')
    return height, width


def load(config: Config, checkpoint: Path) -> tuple[Any, dict[str, Any]]:
    """Build the model with its weights; also return what its data is."""
    content = read_checkpoint(str(checkpoint))
    model: Any = build_model(config)
    match = match_weights(state_dict_of(content), model.state_dict())
    match.require(str(checkpoint), 'the model of the config')
    model.load_state_dict(match.state, strict=False)
    return model.eval(), dataset_meta(content, config)


def int8_judge(
    args: argparse.Namespace, config: Config, checkpoint: Path
) -> Callable[[Path], None]:
    """What compares an int8 folder with PyTorch by the config's metrics."""
    # Needs the data set, which other exports do not.
    from mmtransxnet.deploy.evaluation import evaluate_exported

    def judge(folder: Path) -> None:
        with temporary_work_dir() as work_dir:
            run = config.copy()
            run.work_dir = work_dir
            got = evaluate_exported(run.copy(), folder, engine='openvino')
            run.load_from = str(checkpoint)
            expected = build_runner(run, ['test']).test()
        limit = None if args.allow_loss else args.max_loss
        for line in check_loss(expected, got, limit):
            print(line)

    return judge


def main() -> None:
    """Check, load, export."""
    args = parse_args()
    with report_user_errors():
        request = Request(
            out=Path(args.out),
            formats=tuple(dict.fromkeys(args.format)),
            precision=args.precision,
            batch=args.batch,
            size=args.size,
            raw_masks=args.raw_masks,
        )
        int8 = request.precision == 'int8'
        if args.calibrate and not int8:
            raise UserError('--calibrate is for --precision int8')
        if args.repository and not args.layout:
            raise UserError('--repository is for --layout')
        repository = Path(args.repository or request.out.parent / 'models')
        check_request(request)
        if args.layout:
            check_layout(request.out, repository)
        config = load_config(args.config, args.cfg_options, args.data_root)
        checkpoint = Path(path_of(args.checkpoint))
        model, meta = load(config, checkpoint)
        export(
            model,
            config,
            request,
            checkpoint=checkpoint,
            dataset_meta=meta,
            calibration=(
                calibration_pictures(
                    config, request.size, request.batch, args.calibrate
                )
                if int8
                else ()
            ),
            judge=int8_judge(args, config, checkpoint) if int8 else None,
        )
        if args.layout:
            write_layout(request.out, repository, args.layout)
            print(f'{repository} has the model for {args.layout}')


if __name__ == '__main__':
    main()

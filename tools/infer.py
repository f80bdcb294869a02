"""Predict pictures, folders, videos or a camera and draw the results."""

import argparse
import sys
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
import torch

from mmtransxnet.apis import Inferencer, Result
from mmtransxnet.engine import (
    UserError,
    check_folder,
    load_config,
    report_user_errors,
)
from mmtransxnet.engine.config.options import OptionsAction
from mmtransxnet.utils.allocator import keep_freed_memory


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'inputs', nargs='*', help='pictures, videos, folders of them'
    )
    parser.add_argument(
        '--webcam', type=int, help='number of a camera; end with Ctrl-C'
    )
    parser.add_argument('--out', required=True, help='folder for drawings')
    parser.add_argument('--device', help='cpu, cuda:0, ...')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='minimum score of detections that are drawn',
    )
    parser.add_argument(
        '--fold',
        action='store_true',
        help='predict with the inference form: equal outputs, faster',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='override the config: key=value, key="[a,b]"',
    )
    args = parser.parse_args()
    if not args.inputs and args.webcam is None:
        parser.error('name pictures, videos or folders, or a --webcam')
    return args


def check_device(name: str | None) -> None:
    """Check that a device is available."""
    try:
        torch.empty(0, device=name)
    # Without CUDA, torch raises AssertionError.
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'--device {name}: {reason}') from error


class Summary:
    """Prints the progress and a summary."""

    def __init__(self) -> None:
        self.succeeded: set[Path | int] = set()
        self.failed: dict[Path | int, str] = {}

    def add(self, result: Result) -> None:
        """Record and print a result."""
        if result.error is not None:
            self.failed[result.source] = result.error
            print(f'failed: {result.source}: {result.error}', file=sys.stderr)
        elif result.source not in self.succeeded:
            self.succeeded.add(result.source)
            print(f'{result.source} -> {result.drawing}', flush=True)

    def close(self) -> None:
        """Print the failures; exit with status 1 on failure or no input."""
        print(f'{len(self.succeeded)} drawn, {len(self.failed)} failed')
        if self.failed or not self.succeeded:
            names = ', '.join(str(source) for source in self.failed)
            sys.exit(f'error: failed: {names or "there was nothing to draw"}')


def main() -> None:
    """Build the model and predict the inputs."""
    args = parse_args()
    inputs = [*args.inputs]
    if args.webcam is not None:
        inputs.append(args.webcam)
    summary = Summary()
    with report_user_errors():
        keep_freed_memory()
        check_folder(args.out, '--out')
        check_device(args.device)
        model = Inferencer(
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.device,
            args.score_thr,
            args.fold,
        )
    results = model(inputs, args.out)
    try:
        for result in results:
            summary.add(result)
    except KeyboardInterrupt:
        results.close()  # finishes the file of a video
    summary.close()


if __name__ == '__main__':
    main()

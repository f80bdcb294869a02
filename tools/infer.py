"""Predict pictures, folders, videos or a camera; draw or write the results."""

import argparse
import sys
from pathlib import Path

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
from mmtransxnet.apis import Inferencer, Result
from mmtransxnet.engine import (
    add_launcher,
    check_folder,
    closing_process_group,
    join_processes,
    load_config,
    report_user_errors,
)
from mmtransxnet.engine.config.options import OptionsAction
from mmtransxnet.utils.allocator import keep_freed_memory
from mmtransxnet.utils.devices import check_device


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
    parser.add_argument('--out', help='folder for drawings')
    parser.add_argument(
        '--json',
        help='file for the results: .json, written at the end, or .jsonl, a '
        'line for each picture or frame, as they come',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='maximum number of pictures that are predicted together',
    )
    parser.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='cut larger pictures into overlapping windows of this side and '
        'merge their results',
    )
    parser.add_argument('--device', help='cpu, cuda:0, ...')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='minimum score of detections; by default 0.3 in drawings, and '
        'none in the JSON',
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
    add_launcher(parser)
    # Flags may stand before the inputs, as those of tools/dist_infer.sh do.
    args = parser.parse_intermixed_args()
    if not args.inputs and args.webcam is None:
        parser.error('name pictures, videos or folders, or a --webcam')
    if not args.out and not args.json:
        parser.error('name a folder for drawings (--out) or a --json file')
    if args.launcher != 'none' and not args.json:
        parser.error('--launcher needs a --json file')
    return args


class Summary:
    """Prints the progress and a summary.

    Args:
        what: What is done with a picture.
        is_share: Whether this process has a share of the inputs, which may
            be empty.
    """

    def __init__(self, what: str, is_share: bool) -> None:
        self._what, self._is_share = what, is_share
        self._count = 0
        self._latest: Path | int | None = None
        self._failed: dict[Path | int, str] = {}

    def add(self, result: Result) -> None:
        """Record and print a result."""
        if result.error is not None:
            self._failed[result.source] = result.error
            print(f'failed: {result.source}: {result.error}', file=sys.stderr)
        elif result.source != self._latest:
            self._latest = result.source
            self._count += 1
            target = f' -> {result.drawing}' if result.drawing else ''
            print(f'{result.source}{target}', flush=True)

    def close(self) -> None:
        """Print the failures; exit with status 1 on failure or no input."""
        print(f'{self._count} {self._what}, {len(self._failed)} failed')
        if self._failed or not (self._count or self._is_share):
            names = ', '.join(str(source) for source in self._failed)
            nothing = 'the inputs have no picture and no video'
            sys.exit(f'error: failed: {names or nothing}')


def build(args: argparse.Namespace) -> Inferencer:
    """Check the flags, join the other processes and build the model."""
    if args.out:
        check_folder(args.out, '--out')
    if args.json:
        check_folder(Path(args.json).parent, '--json')
    check_device(args.device)
    config = load_config(args.config, args.cfg_options)
    join_processes(config, args)
    return Inferencer(
        config, args.checkpoint, args.device, args.score_thr, args.fold
    )


def predict(args: argparse.Namespace) -> None:
    """Predict the inputs."""
    keep_freed_memory()
    inputs = [*args.inputs]
    if args.webcam is not None:
        inputs.append(args.webcam)
    results = build(args)(
        inputs,
        args.out,
        json=args.json,
        batch_size=args.batch_size,
        tile=args.tile,
    )
    summary = Summary(
        'drawn' if args.out else 'predicted', args.launcher != 'none'
    )
    try:
        for result in results:
            summary.add(result)
    except KeyboardInterrupt:
        results.close()  # finishes the file of a video
    summary.close()


def main() -> None:
    """Predict, and close the process group."""
    args = parse_args()
    with report_user_errors(), closing_process_group():
        predict(args)


if __name__ == '__main__':
    main()

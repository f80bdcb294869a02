"""Compute an iteration again whose loss or gradients were not finite.

Reads a bad_numbers_iter_N_rankN.pth that a training left in its work
directory. Exit status 0 if the bad numbers come again, 1 if not.
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from mmtransxnet.engine import load_config, report_user_errors
from mmtransxnet.engine.runner.replay import Replay, read_record, replay
from mmtransxnet.weights.reader import named


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', help='bad_numbers_iter_N_rankN.pth')
    parser.add_argument(
        '--config',
        help='config of the run, where its model has classes of your own; '
        'the one in the file may only name what the libraries register',
    )
    return parser.parse_args()


def tell_losses(recorded: dict[str, float], now: dict[str, float]) -> None:
    """Print the losses of then and of now."""
    table = Table('loss', 'in the run', 'now')
    for name, value in now.items():
        then = recorded.get(name)
        table.add_row(name, '' if then is None else f'{then:g}', f'{value:g}')
    Console().print(table)


def tell_places(outcome: Replay) -> None:
    """Print where the bad numbers are."""
    culprit = outcome.culprit
    if culprit is None:
        print('all modules gave finite outputs')
    else:
        inputs = 'not finite either' if culprit.given else 'finite'
        print(
            f'first output that is not finite: {culprit.name or "the model"} '
            f'({culprit.kind}); its inputs were {inputs}'
        )
    for what, names in (
        ('the batch', outcome.inputs),
        ('the weights before the iteration', outcome.weights),
        ('the gradients', outcome.gradients),
    ):
        told = f': {named(names, 10)}' if names else ''
        print(f'not finite in {what}: {len(names)}{told}')


def main() -> None:
    """Read, compute, tell."""
    args = parse_args()
    with report_user_errors():
        record = read_record(args.file)
        config = load_config(args.config) if args.config else None
        outcome = replay(record, config)
    print(f'iteration {record["iteration"]} of rank {record["rank"]}')
    tell_losses(record['losses'], outcome.losses)
    tell_places(outcome)
    if not outcome.bad:
        sys.exit(
            'error: everything is finite now. The run had other processes, '
            'another device or other libraries'
        )


if __name__ == '__main__':
    main()

"""Recompute an iteration whose loss or gradients were not finite.

Reads a non_finite_iter_N_rankN.pth that a training left in its work
directory, and the data that the run read. Exit status 0 if the loss or a
gradient is not finite again, 1 if all are finite.
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from mmtransxnet.engine import config_parser, load_config, report_user_errors
from mmtransxnet.engine.runner.replay import Replay, read_record, replay
from mmtransxnet.utils.text import first_few


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = config_parser(__doc__)
    parser.add_argument('file', help='non_finite_iter_N_rankN.pth')
    return parser.parse_args()


def print_losses(recorded: dict[str, float], now: dict[str, float]) -> None:
    """Print the losses in the run and now."""
    table = Table('loss', 'in the run', 'now')
    for name, value in now.items():
        then = recorded.get(name)
        table.add_row(name, '' if then is None else f'{then:g}', f'{value:g}')
    Console().print(table)


def print_places(outcome: Replay) -> None:
    """Print where values are not finite."""
    culprit = outcome.culprit
    if culprit is None:
        print('the outputs of all modules are finite')
    else:
        inputs = 'not finite either' if culprit.bad_inputs else 'finite'
        print(
            f'first output that is not finite: {culprit.name or "the model"} '
            f'({culprit.kind}); its inputs were {inputs}'
        )
    for part, names in (
        ('the batch', outcome.inputs),
        ('the weights before the iteration', outcome.weights),
        ('the gradients', outcome.gradients),
    ):
        listed = f': {first_few(names, 10)}' if names else ''
        print(f'not finite in {part}: {len(names)}{listed}')


def main() -> None:
    """Read the file, recompute, print."""
    args = parse_args()
    with report_user_errors():
        record = read_record(args.file)
        config = load_config(args.config, args.cfg_options, args.data_root)
        outcome = replay(record, config)
    print(f'iteration {record["iteration"]} of rank {record["rank"]}')
    print_losses(record['losses'], outcome.losses)
    print_places(outcome)
    if not outcome.bad:
        sys.exit(
            'error: everything is finite now. The run had other data or '
            'options, other processes, another device or other libraries'
        )


if __name__ == '__main__':
    main()

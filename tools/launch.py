"""Start a tool in several processes, on this machine or on several.

    python tools/launch.py PROCESSES TOOL [arguments of the tool]

Called by dist_train.sh and dist_test.sh, whose environment variables it reads.
Uses torchrun; machines connect by address instead of name, ranks are in the
order of NODE_RANK, and a failed rendezvous is reported in one line.
"""

import argparse

from mmtransxnet.command import programs
from mmtransxnet.engine.runner.launch import launch


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'processes', help='number of processes on this machine'
    )
    parser.add_argument('tool', help='file of the tool, or its name: train')
    parser.add_argument('arguments', nargs=argparse.REMAINDER)
    return parser.parse_args()


def main() -> None:
    """Run torchrun."""
    args = parse_args()
    tool = str(programs().get(args.tool, args.tool))
    launch(args.processes, tool, args.arguments)


if __name__ == '__main__':
    main()

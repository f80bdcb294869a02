"""Start a tool in several processes, on this machine or on several.

    python tools/launch.py PROCESSES TOOL [arguments of the tool]

What dist_train.sh and dist_test.sh call, and whose variables of the
environment it reads: torchrun, with machines that meet by address and not by
name, ranks in the order of NODE_RANK, and one line where they do not meet.
"""

import argparse

from mmtransxnet.engine.runner.launch import launch


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('processes', help='number of them on this machine')
    parser.add_argument('tool', help='file of the tool')
    parser.add_argument('arguments', nargs=argparse.REMAINDER)
    return parser.parse_args()


def main() -> None:
    """Hand over to torchrun."""
    args = parse_args()
    launch(args.processes, args.tool, args.arguments)


if __name__ == '__main__':
    main()

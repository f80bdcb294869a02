"""Test tools/serve.py under load, on this machine.

It sends pictures from four times as many clients as the server accepts and
compares each answer with that of the picture alone; then it watches the
memory, and stops the server with requests in flight.

    python tools/benchmark/load.py exported/ --out work_dirs/load.json
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mmtransxnet.benchmark.load import (
    joined,
    load,
    sample_pictures,
    serving,
    stop_in_flight,
)
from mmtransxnet.engine import report_user_errors

PARTS = 4

SERVE = Path(__file__).resolve().parents[1] / 'serve.py'


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all parts of the test."""
    pictures = sample_pictures(16, args.sizes)
    limit = ('--max-requests', str(args.accepted))
    clients = 4 * args.accepted
    with serving(SERVE, args.folder, *limit) as server:
        first = asyncio.run(load(server.url, pictures, 8 * clients, clients))
        memory = [server.memory()]
        parts = []
        for part in range(PARTS):
            total = (args.requests + part) // PARTS
            parts.append(
                asyncio.run(load(server.url, pictures, total, clients))
            )
            memory.append(server.memory())
        stopped = asyncio.run(
            stop_in_flight(server, pictures[0], args.accepted)
        )
    return {
        'accepted at a time': args.accepted,
        'clients': clients,
        'warm-up': first.summary(),
        'overload': joined(parts).summary(),
        'MiB before and after each quarter': [round(m, 1) for m in memory],
        'SIGTERM': stopped,
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='of tools/export.py')
    parser.add_argument('--requests', type=int, default=2000)
    parser.add_argument(
        '--accepted', type=int, default=8, help='requests at a time'
    )
    parser.add_argument('--sizes', type=int, nargs='+', default=[96, 128, 160])
    parser.add_argument('--out', type=Path, help='file for the result')
    args = parser.parse_args()
    with report_user_errors():
        result = measure(args)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + '\n')
    overload, stopped = result['overload'], result['SIGTERM']
    failed = overload['lost'] or overload['mixed up']
    if failed or stopped['finished'] < stopped['in flight']:
        sys.exit('error: requests were lost or mixed up')


if __name__ == '__main__':
    main()

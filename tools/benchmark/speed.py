"""Time and memory of TransXNet, its published formula and its peers.

All cases of one mode take turns, each in a process of its own, so other load
on the machine affects them equally, and none uses the heap of another; ratios
are computed within a round. Beside each time are the minor page faults of a
call, the share of its CPU time spent in the system, and its FLOPs as a share
of what a large matrix product reaches on this machine. Peak memory is
measured in another process for each case.

    python tools/benchmark/speed.py --out work_dirs/speed
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmtransxnet.benchmark.speed.cases import (
    FORMS,
    MODES,
    PEERS,
    Case,
    Shape,
)
from mmtransxnet.benchmark.speed.machine import describe, matmul_peak
from mmtransxnet.benchmark.speed.measure import Setting, measure
from mmtransxnet.benchmark.speed.plots import draw
from mmtransxnet.engine import report_user_errors

CASES = [
    'reference-t',
    'transxnet-t',
    'transxnet-t+channels_last',
    'transxnet-t+folded',
    'transxnet-t+folded+compiled',
    'transxnet-t+checkpointed',
    'transxnet-t+bf16',
]
SHAPES = ['8x224x224', '1x800x1216']


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--cases',
        nargs='+',
        type=Case.parse,
        default=[Case.parse(text) for text in CASES],
        help='models with forms; ratios refer to the first.\n'
        'Models: transxnet-{t,s,b}, reference-{t,s,b} (the published\n'
        f'formula), {", ".join(PEERS)},\n'
        'and Mask R-CNN with any of them (maskrcnn-MODEL).\n'
        f'Forms: {", ".join(FORMS)}.\n'
        f'Default: {" ".join(CASES)}',
    )
    parser.add_argument(
        '--peers', action='store_true', help='add all peers, and sizes s, b'
    )
    parser.add_argument(
        '--shapes',
        nargs='+',
        type=Shape.parse,
        default=[Shape.parse(text) for text in SHAPES],
        help=f'batch x height x width (default: {" ".join(SHAPES)})',
    )
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument(
        '--no-memory', action='store_true', help='measure time only'
    )
    parser.add_argument(
        '--keep-memory',
        action='store_true',
        help='keep freed memory, as train.py, test.py and infer.py do;\n'
        "without it, the allocator's default settings",
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/speed'))
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error('--rounds must be at least 1')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no GPU')
    if args.peers:
        models = ['transxnet-s', 'transxnet-b', *PEERS]
        args.cases += [Case.parse(text) for text in models]
    if not any(case.does(mode) for case in args.cases for mode in args.modes):
        parser.error('none of the cases exists in these modes')
    return args


def show_progress(steps: Sequence, title: str) -> Iterable:
    """Show a bar while a loop runs."""
    return track(steps, title, transient=True)


def table(results: list[dict[str, Any]]) -> Table:
    """One row per case; the spread is the range of the rounds."""
    first = results[0]
    rows = Table(title=f'{first["mode"]} {first["shape"]}')
    rows.add_column('case', no_wrap=True)
    titles = ('seconds', 'spread', 'images/s', 'speed', 'of matmul')
    titles += ('faults', 'system', 'peak MiB', 'memory')
    for title in titles:
        rows.add_column(title, justify='right')
    for result in results:
        low, high = min(result['seconds']), max(result['seconds'])
        peak, ratio = result['peak_mib'], result['memory_ratio']
        rows.add_row(
            result['case'],
            f'{result["median"]:.3f}',
            f'{low:.3f}-{high:.3f}',
            f'{result["images_per_second"]:.1f}',
            f'{result["speedup"]:.2f}x',
            f'{result["peak_share"]:.0%}',
            f'{result["page_faults"]:.0f}',
            f'{result["system_share"]:.0%}',
            '' if peak is None else f'{peak:.0f}',
            '' if ratio is None else f'{ratio:.2f}x',
        )
    return rows


def main() -> None:
    """Measure, reporting user errors in one line."""
    args = parse_args()
    with report_user_errors(), TemporaryDirectory() as graphs:
        run(args, Path(graphs))


def run(args: argparse.Namespace, graphs: Path) -> None:
    """Measure, print, write the figures and draw them."""
    torch.set_num_threads(args.threads)
    console = Console()
    if not console.is_terminal:
        console.width = 140  # of a file; needed by the table
    args.out.mkdir(parents=True, exist_ok=True)
    precisions = sorted({case.precision for case in args.cases})
    peaks = {name: matmul_peak(name, args.device) for name in precisions}
    machine = describe(args.device, args.threads, args.keep_memory)
    machine |= dict(rounds=args.rounds, matmul_flops=peaks)
    report: dict[str, Any] = dict(machine=machine, results=[])
    console.print(machine)
    for shape in args.shapes:
        for mode in args.modes:
            setting = Setting(
                shape,
                mode,
                args.device,
                args.threads,
                args.rounds,
                not args.no_memory,
                args.keep_memory,
                peaks,
                graphs,
            )
            results = measure(args.cases, setting, show_progress)
            if not results:  # such as folded cases in training
                continue
            console.print(table(results))
            report['results'] += results
            # Save finished measurements even if later ones fail.
            path = args.out / 'speed.json'
            path.write_text(json.dumps(report, indent=1))
    draw(report['results'], args.out / 'speed.png')
    console.print(f'{path} and {args.out / "speed.png"}')


if __name__ == '__main__':
    main()

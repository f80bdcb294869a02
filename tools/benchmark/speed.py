"""Time and memory of TransXNet, its published formula and its peers.

All cases of one mode take turns in one process, so other load on the machine
affects them equally; ratios are computed within a round. Peak memory is
measured in a separate process for each case.

    python tools/benchmark/speed.py --out work_dirs/speed
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.benchmark import Timer

from mmtransxnet.benchmark.speed.cases import (
    FORMS,
    MODES,
    PEERS,
    TOP1,
    Case,
    Shape,
)
from mmtransxnet.benchmark.speed.memory import peak_memory_elsewhere
from mmtransxnet.benchmark.speed.plots import draw
from mmtransxnet.utils.allocator import keep_freed_memory

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
        'formula), Mask R-CNN with either (maskrcnn-transxnet-t,\n'
        f'maskrcnn-reference-t), {", ".join(PEERS)}.\n'
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
    return args


# ------------------------------------------------------------------- time
def time_rounds(
    cases: list[Case], shape: Shape, mode: str, args: argparse.Namespace
) -> list[list[float]]:
    """Seconds of each round of each case, after one round to warm up."""
    timers = [
        Timer(
            'work()',
            globals=dict(work=case.work(shape, mode, args.device)),
            num_threads=args.threads,
        )
        for case in cases
    ]
    seconds: list[list[float]] = [[] for _ in cases]
    rounds = range(args.rounds + 1)
    for turn in track(rounds, f'{mode} {shape}', transient=True):
        for timer, times in zip(timers, seconds, strict=True):
            elapsed = timer.timeit(1).mean
            if turn:
                times.append(elapsed)
    return seconds


# ----------------------------------------------------------------- memory
def memory_of(
    case: Case, shape: Shape, mode: str, args: argparse.Namespace
) -> float | None:
    """Peak memory in MiB; None where the case fails."""
    try:
        return peak_memory_elsewhere(
            case, shape, mode, args.device, args.threads
        )
    except subprocess.CalledProcessError as error:
        print(f'{case} {mode} {shape}: {error.stderr[-2000:]}')
        return None


# ---------------------------------------------------------------- results
def measure(
    shape: Shape, mode: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure all cases of a mode and a shape."""
    cases = [case for case in args.cases if case.does(mode)]
    peaks: list[float | None] = [None] * len(cases)
    if not args.no_memory:
        steps = track(cases, f'memory {mode} {shape}', transient=True)
        peaks = [memory_of(case, shape, mode, args) for case in steps]
    seconds = time_rounds(cases, shape, mode, args)
    return [
        dict(
            case=str(case),
            model=case.model,
            shape=str(shape),
            megapixels=shape.megapixels,
            mode=mode,
            seconds=times,
            median=statistics.median(times),
            images_per_second=shape.batch / statistics.median(times),
            speedup=statistics.median(
                first / mine
                for first, mine in zip(seconds[0], times, strict=True)
            ),
            peak_mib=peak,
            memory_ratio=peak / peaks[0] if peak and peaks[0] else None,
            top1=TOP1.get(case.model),
        )
        for case, times, peak in zip(cases, seconds, peaks, strict=True)
    ]


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Hardware and software of the measurement."""
    if args.device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        info = Path('/proc/cpuinfo').read_text().splitlines()
        models = [line for line in info if line.startswith('model name')]
        name = models[0].split(':')[1].strip() if models else 'unknown'
        name += f', {torch.backends.cpu.get_cpu_capability()}'
    return dict(
        device=name,
        threads=args.threads,
        cores=os.cpu_count(),
        torch=torch.__version__,
        python=platform.python_version(),
        rounds=args.rounds,
        keep_memory=args.keep_memory,
    )


def table(results: list[dict[str, Any]]) -> Table:
    """One row per case; the spread is the range of the rounds."""
    first = results[0]
    rows = Table(title=f'{first["mode"]} {first["shape"]}')
    rows.add_column('case', no_wrap=True)
    titles = ('seconds', 'spread', 'images/s', 'speed', 'peak MiB', 'memory')
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
            '' if peak is None else f'{peak:.0f}',
            '' if ratio is None else f'{ratio:.2f}x',
        )
    return rows


def main() -> None:
    """Measure, print, write the figures and draw them."""
    args = parse_args()
    args.keep_memory = args.keep_memory and keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    console = Console()
    if not console.is_terminal:
        console.width = 100  # of a file; needed by the table
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = dict(machine=machine(args), results=[])
    console.print(report['machine'])
    for shape in args.shapes:
        for mode in args.modes:
            results = measure(shape, mode, args)
            console.print(table(results))
            report['results'] += results
            # Save finished measurements even if later ones fail.
            path = args.out / 'speed.json'
            path.write_text(json.dumps(report, indent=1))
    draw(report['results'], args.out / 'speed.png')
    console.print(f'{path} and {args.out / "speed.png"}')


if __name__ == '__main__':
    main()

"""Estimate time and memory of a step on a GPU, without one.

The step runs on tensors without data; its FLOPs, bytes, kernels, memory and
host synchronisations are counted, and its time is estimated from the
published figures of the GPU.

    python tools/benchmark/cost.py
    python tools/benchmark/cost.py CONFIG --gpu a100-40g --amp bf16

The first compares models, the second tells which batch of a training recipe
fits, and how long a step takes. --check compares the counts with this CPU.
"""

import argparse
from functools import cache, partial

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmtransxnet.benchmark.cost.check import compare
from mmtransxnet.benchmark.cost.counter import Cost
from mmtransxnet.benchmark.cost.fit import (
    CONTEXT,
    RESERVE,
    available,
    largest_batch,
)
from mmtransxnet.benchmark.cost.gpus import GPUS, estimated_seconds
from mmtransxnet.benchmark.cost.recipe import (
    NOT_COUNTED,
    count_recipe,
    training_dtype,
    training_size,
)
from mmtransxnet.benchmark.cost.step import count_case
from mmtransxnet.benchmark.speed.cases import (
    DETECTOR,
    MODES,
    PRECISIONS,
    Case,
    Shape,
)
from mmtransxnet.engine import config_parser, load_config, report_user_errors

CASES = [
    f'{model}{precision}'
    for precision in ('', '+bf16')
    for model in (
        'reference-t',
        'transxnet-t',
        'transxnet-t+folded',
        'convnext_tiny',
        'swin_tiny_patch4_window7_224',
        'pvt_v2_b2',
    )
]
SHAPES = ['128x224x224', '2x800x1216']
CHECKED_CASES = ['transxnet-t', 'transxnet-t+folded']
CHECKED_SHAPES = ['8x224x224', '1x800x1216']


def parse_case(text: str) -> Case:
    """Parse a case that can be counted."""
    case = Case.parse(text)
    not_eager = 'compiled' in case.forms or case.engine
    if not_eager or case.model.startswith(DETECTOR):
        raise argparse.ArgumentTypeError(
            f"'{text}': compiled or exported models and detectors cannot be "
            'counted as a case; give a config for a detector'
        )
    return case


def parse_args() -> argparse.Namespace:
    """Read what to estimate."""
    parser = config_parser(__doc__, required=False)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument(
        '--gpu',
        choices=GPUS,
        default='a100-40g',
        help='its published figures are used (default: a100-40g)',
    )
    parser.add_argument(
        '--amp',
        choices=['bf16', 'fp16'],
        help='with CONFIG: mixed precision; that of the config if not set',
    )
    parser.add_argument(
        '--cases', nargs='+', type=parse_case,
        help='without CONFIG: models with forms, as in speed.py',
    )  # fmt: skip
    parser.add_argument(
        '--shapes',
        nargs='+',
        type=Shape.parse,
        help='without CONFIG: batch x height x width',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='without CONFIG: compare the counts with runs on this CPU',
    )
    args = parser.parse_args()
    if args.config and (args.cases or args.shapes or args.check):
        parser.error('--cases, --shapes and --check are not for a CONFIG')
    cases, shapes = CASES, SHAPES
    if args.check:
        cases, shapes = CHECKED_CASES, CHECKED_SHAPES
    args.cases = args.cases or [Case.parse(text) for text in cases]
    args.shapes = args.shapes or [Shape.parse(text) for text in shapes]
    return args


def add_columns(table: Table, *titles: str) -> None:
    """Add columns of numbers."""
    for title in titles:
        table.add_column(title, justify='right')


def figures(cost: Cost, seconds: float) -> list[str]:
    """The cells of a row for a counted step."""
    return [
        f'{cost.flops / 1e9:.0f}',
        f'{cost.nbytes / 1e9:.1f}',
        f'{cost.kernels}',
        f'{cost.peak / 2**30:.2f}',
        f'{cost.syncs}',
        f'{seconds * 1e3:.1f}',
    ]


FIGURES = ('GFLOP', 'GB moved', 'kernels', 'peak GiB', 'syncs', 'ms')


def print_cases(args: argparse.Namespace, console: Console) -> None:
    """Print a table for each shape and mode."""
    gpu = GPUS[args.gpu]
    for shape in args.shapes:
        for mode in MODES:
            cases = [case for case in args.cases if case.does(mode)]
            table = Table(title=f'{mode} {shape}, estimated for {gpu.name}')
            table.add_column('case', no_wrap=True)
            add_columns(table, *FIGURES)
            for case in track(cases, f'{mode} {shape}', transient=True):
                cost = count_case(case, shape, mode)
                tf32 = case.precision == 'tf32'
                seconds = estimated_seconds(cost, gpu, tf32, tf32)
                table.add_row(str(case), *figures(cost, seconds))
            console.print(table)


def print_recipe(args: argparse.Namespace, console: Console) -> None:
    """Print which batch of a config fits, and the time of its step."""
    gpu = GPUS[args.gpu]
    config = load_config(args.config, args.cfg_options, args.data_root)
    dtype = PRECISIONS[args.amp] if args.amp else training_dtype(config)
    height, width = training_size(config)
    count = cache(partial(count_recipe, config, dtype=dtype))
    largest = largest_batch(count, gpu)
    name = str(dtype).removeprefix('torch.')
    table = Table(
        title=f'a training step of {args.config}, {height} x {width}, '
        f'{name}, estimated for {gpu.name}'
    )
    table.add_column('batch')
    add_columns(table, *FIGURES, 'images/s')
    own = config.train_dataloader.batch_size
    batches = {own: f'{own} (of the config)', largest: f'{largest} (largest)'}
    for batch, label in sorted(batches.items()):
        if not batch:
            continue
        cost = count(batch)
        # PyTorch's defaults: TF32 in convolutions, not in other products.
        seconds = estimated_seconds(cost, gpu, True, False)
        if cost.peak > available(gpu):
            label += ', does not fit'
        table.add_row(label, *figures(cost, seconds), f'{batch / seconds:.0f}')
    console.print(table)
    console.print(
        f'{available(gpu) / 2**30:.1f} of {gpu.memory} GiB are for tensors: '
        f'{CONTEXT / 2**30:.1f} GiB are the context, {RESERVE:.0%} a reserve.'
    )
    console.print(f'Not counted: {"; ".join(NOT_COUNTED)}.')


def print_check(args: argparse.Namespace, console: Console) -> None:
    """Print what is counted beside what is measured on this CPU."""
    table = Table(title='counted and measured, settings of this CPU')
    table.add_column('case', no_wrap=True)
    add_columns(table, 'GFLOP', 'measured', 'peak MiB', 'measured', 'ratio')
    for shape in args.shapes:
        for mode in MODES:
            for case in args.cases:
                if case.does(mode):
                    found = compare(case, shape, mode)
                    table.add_row(
                        f'{case} {mode} {shape}',
                        *(f'{n / 1e9:.1f}' for n in found.flops),
                        *(f'{n / 2**20:.0f}' for n in found.nbytes),
                        f'{found.nbytes[0] / found.nbytes[1]:.2f}',
                    )
    console.print(table)


def main() -> None:
    """Count, estimate and print."""
    args = parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 110  # of a file; needed by the tables
    with report_user_errors():
        if args.config:
            print_recipe(args, console)
        elif args.check:
            print_check(args, console)
        else:
            print_cases(args, console)
            console.print(
                'Estimated from published figures, not measured: real steps '
                'take longer (docs/gpu.md).'
            )


if __name__ == '__main__':
    main()

"""Evaluate published weights and compare with the published figures.

Configs, data and weights of all models are checked first, which takes
seconds; models with missing parts are reported and skipped. Finished models
are not repeated. With --train the training commands of the recipes are
printed.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console

from mmtransxnet.benchmark import (
    Checked,
    Launch,
    Outcome,
    Row,
    check_rows,
    compare_figures,
    evaluate,
    load_outcomes,
    read_rows,
    select_rows,
    still_holds,
    training_command,
    write_report,
)
from mmtransxnet.benchmark.commands import published_gpus
from mmtransxnet.engine import (
    UserError,
    check_folder,
    load_config,
    report_user_errors,
)

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = Console(soft_wrap=True, highlight=False)


def parse_args() -> argparse.Namespace:
    """Read what to reproduce, and how."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--task',
        nargs='+',
        default=[],
        help='classification, detection, segmentation (all three if '
        'nothing is named), digits',
    )
    parser.add_argument(
        '--models', nargs='+', default=[], help='names in the metafiles'
    )
    parser.add_argument(
        '--metafiles',
        nargs='+',
        type=Path,
        help='instead of those under configs/',
    )
    parser.add_argument(
        '--checkpoints',
        type=Path,
        help='folder of checkpoints (NAME.pth, published file names, or '
        'work directories NAME/) to use before the published weights',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none'
    )
    parser.add_argument(
        '--gpus', type=int, help='GPUs at hand; all of this machine, or 8'
    )
    parser.add_argument('--partition', help='of --launcher slurm')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/reproduce')
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='for all runs'
    )
    parser.add_argument(
        '--train', action='store_true', help='print the training commands'
    )
    parser.add_argument(
        '--submit', action='store_true', help='with --train: run them'
    )
    args = parser.parse_args()
    if args.submit and not args.train:
        parser.error('--submit goes with --train')
    return args


def metafiles() -> list[Path]:
    """The metafiles of the repository."""
    configs = ROOT / 'configs'
    return sorted([*configs.glob('*/metafile.yml'), *configs.glob('*.yml')])


def tasks_of(args: argparse.Namespace) -> list[str]:
    """The requested tasks; by default, the published ones."""
    if args.task or args.models or args.metafiles:
        return args.task
    return ['classification', 'detection', 'segmentation']


def launch_of(args: argparse.Namespace) -> Launch:
    """How processes are started."""
    at_hand = 8 if args.launcher == 'slurm' else torch.cuda.device_count()
    gpus = max(1, at_hand) if args.gpus is None else args.gpus
    options = tuple(args.cfg_options)
    return Launch(args.launcher, gpus, args.partition, options)


def train(rows: list[Row], launch: Launch, submit: bool) -> None:
    """Print the training commands, or run them one after the other."""
    failed = []
    for row in rows:
        config = load_config(row.config)
        command = training_command(launch, row.name, config)
        CONSOLE.print(
            f'# {row.name}: the recipe has {published_gpus(config)} GPUs'
        )
        variables = [f'{k}={v}' for k, v in command.environment.items()]
        CONSOLE.print(' '.join([*variables, shlex.join(command.words)]))
        if submit:
            environment = command.full_environment()
            done = subprocess.run(command.words, cwd=ROOT, env=environment)
            if done.returncode:
                failed.append(row.name)
    if failed:
        sys.exit(f'error: training failed: {", ".join(failed)}')


def outcome_of(
    checked: Checked, earlier: Outcome | None, launch: Launch, out: Path
) -> Outcome:
    """The outcome of a row: an earlier one, a missing one, or a new one."""
    row = checked.row
    if checked.state != 'ready':
        return Outcome(row.name, checked.state, reason=checked.reason)
    if earlier and still_holds(earlier, checked):
        compare_figures(
            earlier, row
        )  # the figures may have been corrected since
        return earlier
    CONSOLE.print(f'evaluating {row.name}, see {out / row.name}/output.log')
    return evaluate(checked, launch, ROOT, out)


def reproduce(
    rows: list[Row], launch: Launch, out: Path, checkpoints: Path | None
) -> bool:
    """Check and evaluate all rows; return whether all were reproduced."""
    checked = check_rows(rows, checkpoints, launch.options)
    for check in checked:
        CONSOLE.print(f'{check.row.name}: {check.state}')
    earlier = load_outcomes(out)
    outcomes = [Outcome(row.name, 'not yet evaluated') for row in rows]
    for index, check in enumerate(checked):
        known = earlier.get(check.row.name)
        outcomes[index] = outcome_of(check, known, launch, out)
        write_report(rows, outcomes, out)
    CONSOLE.print((out / 'report.md').read_text())
    passing = ('reproduced', 'nothing published')
    return all(outcome.state in passing for outcome in outcomes)


def main() -> None:
    """Reproduce figures, or print the training commands."""
    args = parse_args()
    # Metafiles name configs relative to the root; user paths are resolved
    # before changing to it.
    out = args.out.resolve()
    checkpoints = args.checkpoints and args.checkpoints.resolve()
    files = [file.resolve() for file in args.metafiles or metafiles()]
    os.chdir(ROOT)
    with report_user_errors():
        if checkpoints and not checkpoints.is_dir():
            raise UserError(f'--checkpoints {checkpoints} is not a folder')
        check_folder(out, '--out')
        rows = [row for file in files for row in read_rows(file)]
        rows = select_rows(rows, tasks_of(args), args.models)
        launch = launch_of(args)
        if args.train:
            train(rows, launch, args.submit)
            return
        reproduced = reproduce(rows, launch, out, checkpoints)
    if not reproduced:
        sys.exit(
            f'error: not all figures were reproduced, see {out / "report.md"}'
        )


if __name__ == '__main__':
    main()

"""Check that repeatedly killed runs end like undisturbed ones.

A small model is trained undisturbed. Then the same run is started, killed at
random moments and resumed until it finishes; this is repeated until the number
of kills is reached. Every final checkpoint must equal the undisturbed one bit
by bit (weights, averaged weights, optimizer, schedules), and every loss logged
on the way must be the one of that iteration.

    python tools/drill.py --kills 50 --seed 0
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mmtransxnet.benchmark.drill import KINDS, Drill, Kill


def summary(kills: list[Kill]) -> Table:
    """Number of kills by kind."""
    table = Table('kind', 'kills', 'in a write', 'of two processes', 'what')
    for kind, meaning in KINDS.items():
        mine = [kill for kill in kills if kill.kind == kind]
        table.add_row(
            kind,
            str(len(mine)),
            str(sum(kill.inside for kill in mine)),
            str(sum(kill.processes > 1 for kill in mine)),
            meaning,
        )
    return table


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', type=Path, default='work_dirs/drill')
    args = parser.parse_args()
    if args.kills < 1:
        parser.error('--kills must be at least 1')
    return args


def main() -> None:
    """Run the drill, report, and exit with status 1 on any difference."""
    args = parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    drill = Drill(folder, args.seed)
    console = Console()
    kills: list[Kill] = []
    problems: list[str] = []
    runs = 0
    with Progress(console=console) as progress:
        task = progress.add_task('kills', total=args.kills)
        while len(kills) < args.kills:
            runs += 1
            new, different = drill.run(runs, args.kills - len(kills))
            kills += new
            problems += different
            progress.update(task, completed=len(kills))
    console.print(summary(kills))
    report = dict(
        seed=args.seed,
        runs=runs,
        problems=problems,
        kills=[asdict(kill) for kill in kills],
    )
    path = folder / 'drill.json'
    path.write_text(json.dumps(report, indent=1))
    inside = sum(kill.inside for kill in kills)
    console.print(
        f'{len(kills)} kills in {runs} runs, {inside} of them in a write: '
        + ('all runs ended as undisturbed ones' if not problems else '')
    )
    for problem in problems:
        console.print(problem, markup=False)
    console.print(f'Written to {path}', soft_wrap=True)
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()

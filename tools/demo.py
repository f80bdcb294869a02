"""Train Mask R-CNN + TransXNet on the embedded digits and show the result.

It only calls the tools that a user would call, and prints each command.
"""

import argparse
import json
import os
import pickle
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmtransxnet.datasets import side_by_side

ROOT = Path(__file__).parents[1]
CLASSIFIER = 'configs/classification/transxnet_t_digits.py'
DETECTOR = 'configs/detection/maskrcnn_transxnet_t_digits.py'

console = Console()


class Demo:
    """The steps of the demo, timed.

    Args:
        folder: Where logs, checkpoints and the picture go.
        options: Further ``--cfg-options`` of both trainings.
    """

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = folder
        self.options = options
        self.minutes: dict[str, float] = {}

    def run(self, step: str, tool: str, *arguments: str) -> None:
        """Run a tool of this folder; stop the demo where it fails."""
        command = [sys.executable, f'tools/{tool}', *arguments]
        console.rule(f'[bold]{step}')
        console.print(
            '$', shlex.join(['python', *command[1:]]), soft_wrap=True
        )
        start = time.monotonic()
        status = subprocess.run(command, cwd=ROOT).returncode
        if status:
            sys.exit(status)
        self.minutes[step] = (time.monotonic() - start) / 60

    def train(self, step: str, config: str, *options: str) -> str:
        """Train a config and return its last checkpoint."""
        work_dir = self.folder / Path(config).stem
        arguments = [config, '--work-dir', str(work_dir)]
        options = (*self.options, *options)
        if options:
            arguments += ['--cfg-options', *options]
        self.run(step, 'train.py', *arguments)
        return (work_dir / 'last_checkpoint').read_text().strip()

    def test(self, step: str, config: str, checkpoint: str) -> Path:
        """Evaluate a checkpoint; return the folder with what came out."""
        work_dir = self.folder / 'evaluation'
        predictions = work_dir / 'predictions.pkl'
        self.run(
            step,
            'test.py',
            config,
            checkpoint,
            '--work-dir',
            str(work_dir),
            '--out',
            str(predictions),
        )
        return work_dir


def metrics_in(work_dir: Path) -> dict[str, float]:
    """The metrics of the latest test in a work directory."""
    latest = max(
        work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime
    )
    return json.loads(latest.read_text())


def summary(metrics: dict[str, float], minutes: dict[str, float]) -> Table:
    """Results and times as a table."""
    table = Table(title='Mask R-CNN, TransXNet-T, 160 validation scenes')
    table.add_column('what')
    table.add_column('value', justify='right')
    for name, key in (
        ('box AP', 'bbox_mAP'),
        ('box AP50', 'bbox_mAP_50'),
        ('mask AP', 'segm_mAP'),
        ('mask AP50', 'segm_mAP_50'),
    ):
        table.add_row(name, f'{metrics[f"coco/{key}"]:.3f}')
    table.add_section()
    for step, value in minutes.items():
        table.add_row(step, f'{value:.1f} min')
    table.add_row('together', f'{sum(minutes.values()):.1f} min')
    return table


def digits_root() -> str:
    """Where the configs look for the data."""
    return os.environ.get('DIGITS_ROOT', 'data/digits')


def main() -> None:
    """Build the data, pretrain, train, evaluate, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', type=Path, default='work_dirs/demo')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='for both trainings'
    )
    args = parser.parse_args()

    demo = Demo(args.folder, args.cfg_options)
    demo.run('data', 'dataset/build_digits.py', '--root', digits_root())
    pretrained = demo.train('classification pretraining', CLASSIFIER)
    checkpoint = demo.train(
        'Mask R-CNN training',
        DETECTOR,
        f'model.backbone.init_cfg.checkpoint={pretrained}',
    )
    work_dir = demo.test('evaluation', DETECTOR, checkpoint)

    predictions = pickle.loads((work_dir / 'predictions.pkl').read_bytes())
    picture = args.folder / 'predictions.png'
    side_by_side(digits_root(), predictions).save(picture)
    console.print(summary(metrics_in(work_dir), demo.minutes))
    console.print(
        f'Ground truth beside predictions: {picture}', soft_wrap=True
    )


if __name__ == '__main__':
    main()

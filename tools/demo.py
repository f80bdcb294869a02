"""Train Mask R-CNN + TransXNet on the embedded digits and show the result.

It only calls the tools for users, and prints each command.
"""

import argparse
import os
import pickle
from pathlib import Path

from rich.table import Table

from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps
from mmtransxnet.datasets import side_by_side

ROOT = Path(__file__).resolve().parents[1]
DETECTOR = 'configs/detection/maskrcnn_transxnet_t_digits.py'


def summary(
    metrics: dict[str, float], scenes: int, minutes: dict[str, float]
) -> Table:
    """Results and times as a table."""
    table = Table(title=f'Mask R-CNN, TransXNet-T, {scenes} validation scenes')
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


def main() -> None:
    """Build the data, pretrain, train, evaluate, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', type=Path, default='work_dirs/demo')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='for both trainings'
    )
    args = parser.parse_args()
    folder = args.folder.resolve()
    # Where the configs look for the data.
    data = os.environ.get('DIGITS_ROOT', 'data/digits')

    steps = Steps(ROOT, folder, args.cfg_options)
    steps.run('data', 'dataset/build_digits.py', '--root', data)
    pretrained = steps.train('classification pretraining', PRETRAINING)
    checkpoint = steps.train(
        'Mask R-CNN training',
        DETECTOR,
        f'model.backbone.init_cfg.checkpoint={pretrained}',
    )
    file = folder / 'predictions.pkl'
    metrics = steps.test(
        'evaluation', DETECTOR, checkpoint, '--out', str(file)
    )

    predictions = pickle.loads(file.read_bytes())
    picture = folder / 'predictions.png'
    side_by_side(data, predictions).save(picture)
    steps.console.print(summary(metrics, len(predictions), steps.minutes))
    steps.console.print(
        f'Ground truth beside predictions: {picture}', soft_wrap=True
    )


if __name__ == '__main__':
    main()

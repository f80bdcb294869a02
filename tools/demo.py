"""Train Mask R-CNN + TransXNet on the embedded digits and show the result.

It only calls the tools for users, and shows each command.
"""

import argparse
import os
import pickle
import sys
from pathlib import Path

from rich.table import Table

from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps
from mmtransxnet.datasets import contact_sheet, side_by_side

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


def next_commands(checkpoint: str, pictures: str) -> str:
    """What to try with the trained model."""
    config = Path(DETECTOR).stem
    start, web = 'mmtransxnet', f'mmtransxnet web-demo {config} {checkpoint}'
    if Path('tools/demo.py').is_file():
        start = os.path.join(os.path.dirname(sys.executable), start)
        start, web = os.path.relpath(start), 'make web'
    return '\n'.join(
        [
            f'{start} infer {config} {checkpoint} {pictures} --out drawn',
            f'{start} new-config YOUR_DATA --out my_configs/mine.py',
            f'{web}  # a page to drop pictures on',
        ]
    )


def main() -> None:
    """Build the data, pretrain, train, evaluate, draw, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', type=Path, default='work_dirs/demo')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='for both trainings'
    )
    args = parser.parse_args()
    folder = args.folder.resolve()
    # Where the configs look for the data.
    data = os.environ.get('DIGITS_ROOT', 'data/digits')

    steps = Steps(folder, args.cfg_options)
    print = steps.console.print
    print(
        'Five steps, about 8 minutes on two CPU cores: data, pretraining of '
        'the backbone, training of Mask R-CNN, evaluation, report. '
        f'All output: {steps.log}',
        soft_wrap=True,
    )
    steps.run(
        '1/5 data',
        'dataset/build_digits.py',
        '--root',
        data,
        comes='draws 960 scenes and 6,123 single digits; 0.4 min',
    )
    sheet = folder / 'data.png'
    contact_sheet(data).save(sheet)
    print(f'What the model has to find: {sheet}', soft_wrap=True)
    pretrained = steps.train(
        '2/5 pretraining',
        PRETRAINING,
        comes='TransXNet-T learns to tell single digits; 2 min',
    )
    checkpoint = steps.train(
        '3/5 Mask R-CNN',
        DETECTOR,
        f'model.backbone.init_cfg.checkpoint={pretrained}',
        comes='learns to find and outline digits in scenes; 5 min',
    )
    file = folder / 'predictions.pkl'
    metrics = steps.test(
        '4/5 evaluation',
        DETECTOR,
        checkpoint,
        '--out',
        str(file),
        comes='160 scenes it has not seen; 0.3 min',
    )

    predictions = pickle.loads(file.read_bytes())
    picture = folder / 'predictions.png'
    side_by_side(data, predictions).save(picture)
    page = folder / 'report.html'
    steps.run(
        '5/5 report',
        'report.py',
        str(folder / Path(DETECTOR).stem),
        '--out',
        str(page),
        comes='a page about the training and its mistakes; 0.3 min',
    )
    print(summary(metrics, len(predictions), steps.minutes))
    print(f'Ground truth beside predictions: {picture}', soft_wrap=True)
    print(f'Report, for a browser: {page}', soft_wrap=True)
    print('\nNext, for example:')
    photos = os.path.join(data, 'coco/val')
    print(next_commands(checkpoint, photos), soft_wrap=True)


if __name__ == '__main__':
    main()

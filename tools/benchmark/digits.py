"""Train every algorithm on the embedded digits and write down the results.

Each is trained and evaluated with the tools for users. The results go to
configs/metafile_digits.yml, from which `make tables` makes the table in the
README.
"""

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table

from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps

ROOT = Path(__file__).resolve().parents[2]
METAFILE = ROOT / 'configs/metafile_digits.yml'

# Task, and metrics to record: name in the metafile, name in the logs.
TASKS: dict[str, tuple[str, dict[str, str]]] = {
    'configs/detection/retinanet_transxnet_t_digits.py': (
        'Object Detection',
        {'box AP': 'coco/bbox_mAP', 'box AP50': 'coco/bbox_mAP_50'},
    ),
    'configs/detection/maskrcnn_transxnet_t_digits.py': (
        'Instance Segmentation',
        {
            'box AP': 'coco/bbox_mAP',
            'box AP50': 'coco/bbox_mAP_50',
            'mask AP': 'coco/segm_mAP',
            'mask AP50': 'coco/segm_mAP_50',
        },
    ),
    'configs/segmentation/sfpn_transxnet_t_digits.py': (
        'Semantic Segmentation',
        {'mIoU': 'mIoU', 'aAcc': 'aAcc'},
    ),
    'configs/segmentation/upernet_transxnet_t_digits.py': (
        'Semantic Segmentation',
        {'mIoU': 'mIoU', 'aAcc': 'aAcc'},
    ),
}


def entry(
    config: str, task: str, metrics: dict[str, float], minutes: float
) -> dict[str, Any]:
    """The metafile entry of a model."""
    return {
        'Name': Path(config).stem,
        'In Collection': 'TransXNet digits',
        'Config': config,
        'Metadata': {
            'Training Minutes': round(minutes, 1),
            # Tolerance of reproduce.py in percentage points, for these
            # weights.
            'Tolerance': 0.1,
        },
        'Results': [
            {'Task': task, 'Dataset': 'embedded digits', 'Metrics': metrics}
        ],
    }


def rounded(metrics: dict[str, float], names: dict[str, str]) -> dict:
    """The metrics to record, as percentages with one digit."""
    return {
        name: round(metrics[key] * (100 if key.startswith('coco/') else 1), 1)
        for name, key in names.items()
    }


def train_all(steps: Steps) -> list[dict[str, Any]]:
    """Pretrain the backbone, then train and evaluate every algorithm."""
    name = Path(PRETRAINING).stem
    pretrained = steps.train(name, PRETRAINING)
    metrics = steps.test(f'{name}, evaluation', PRETRAINING, pretrained)
    accuracy = rounded(metrics, {'top-1': 'accuracy/top1'})
    models = [
        entry(
            PRETRAINING, 'Image Classification', accuracy, steps.minutes[name]
        )
    ]
    start = f'model.backbone.init_cfg.checkpoint={pretrained}'
    for config, (task, names) in TASKS.items():
        name = Path(config).stem
        checkpoint = steps.train(name, config, start)
        metrics = steps.test(f'{name}, evaluation', config, checkpoint)
        models.append(
            entry(config, task, rounded(metrics, names), steps.minutes[name])
        )
    return models


def write_metafile(path: Path, models: list[dict[str, Any]]) -> None:
    """Write the models and the machine they were measured on."""
    collection = {
        'Name': 'TransXNet digits',
        'Metadata': {
            'Training Data': 'embedded digits',
            'Training Resources': f'{os.cpu_count()} CPU cores, '
            f'{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, '
            f'{torch.get_num_threads()} threads',
            'Torch': str(torch.__version__),
        },
        'README': 'docs/demo.md',
    }
    text = yaml.safe_dump(
        {'Collections': [collection], 'Models': models}, sort_keys=False
    )
    path.write_text(f'# Written by tools/benchmark/digits.py.\n{text}')


def main() -> None:
    """Build the data, train everything, write the metafile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', type=Path, default='work_dirs/digits')
    parser.add_argument('--metafile', type=Path, default=METAFILE)
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='for all trainings'
    )
    args = parser.parse_args()
    steps = Steps(args.folder.resolve(), args.cfg_options)
    data = os.environ.get('DIGITS_ROOT', 'data/digits')
    steps.run('data', 'dataset/build_digits.py', '--root', data)
    models = train_all(steps)
    write_metafile(args.metafile, models)
    table = Table('model', 'result', 'training')
    for model in models:
        metrics = model['Results'][0]['Metrics']
        table.add_row(
            model['Name'],
            ', '.join(f'{name} {value}' for name, value in metrics.items()),
            f'{model["Metadata"]["Training Minutes"]} min',
        )
    steps.console.print(table)
    steps.console.print(f'Written to {args.metafile}')


if __name__ == '__main__':
    main()

"""Compare all exported formats of the digits models with PyTorch.

For each model and format: the metric (tools/test.py), the size of the files,
pictures a second (one at a time, from pixels to results) and the peak memory
of the process. Without --work-dirs the models are trained first. The figures
go to docs/benchmarks/formats, of which `make tables` makes the table in
docs/export.md.

    python tools/benchmark/formats.py --work-dirs work_dirs/digits
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.benchmark.formats import FOLDER, FORMS, PYTORCH, Form
from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps
from mmtransxnet.benchmark.speed.machine import describe
from mmtransxnet.benchmark.speed.records import file_name
from mmtransxnet.engine import UserError, load_config, report_user_errors
from mmtransxnet.utils.paths import ROOT
from mmtransxnet.version import __version__

# Metrics by config: name in the table, name in the logs, points in a unit.
_BOX = ('box AP', 'coco/bbox_mAP', 100)
MODELS: dict[str, list[tuple[str, str, float]]] = {
    PRETRAINING: [('top-1', 'accuracy/top1', 1)],
    'configs/detection/retinanet_transxnet_t_digits.py': [_BOX],
    'configs/detection/maskrcnn_transxnet_t_digits.py': [
        _BOX,
        ('mask AP', 'coco/segm_mAP', 100),
    ],
    'configs/segmentation/sfpn_transxnet_t_digits.py': [('mIoU', 'mIoU', 1)],
    'configs/segmentation/upernet_transxnet_t_digits.py': [
        ('mIoU', 'mIoU', 1)
    ],
}
PICTURES = 16
WORKER = Path(__file__).with_name('format_worker.py')


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--work-dirs',
        type=Path,
        help='folder of tools/benchmark/digits.py with trained models',
    )
    parser.add_argument('--folder', type=Path, default='work_dirs/formats')
    names = {Path(config).stem: config for config in MODELS}
    parser.add_argument(
        '--models', nargs='+', choices=names, default=list(names)
    )
    titles = [form.title for form in FORMS]
    parser.add_argument(
        '--forms', nargs='+', choices=titles, default=titles, metavar='FORM'
    )
    parser.add_argument(
        '--no-speed',
        dest='speed',
        action='store_false',
        help='leave the speed out, on a busy machine',
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/benchmarks' / FOLDER
    )
    args = parser.parse_args()
    args.configs = [names[name] for name in args.models]
    return args


def checkpoint_of(config: str, work_dirs: Path) -> str:
    """The last checkpoint of a model that was trained."""
    pointer = work_dirs / Path(config).stem / 'last_checkpoint'
    if not pointer.is_file():
        raise UserError(
            f'{pointer} does not exist: train with tools/benchmark/digits.py, '
            'or leave --work-dirs out'
        )
    return pointer.read_text().strip()


def train(steps: Steps, configs: list[str]) -> None:
    """Train models as tools/benchmark/digits.py does."""
    pretrained = steps.train('pretraining', PRETRAINING)
    option = f'model.backbone.init_cfg.checkpoint={pretrained}'
    for config in configs:
        if config != PRETRAINING:
            steps.train(Path(config).stem, config, option)


def pictures_of(config: str) -> list[str]:
    """The first pictures of the validation."""
    dataset = load_config(config).test_dataloader.dataset
    prefix = dataset.data_prefix
    if isinstance(prefix, dict):
        prefix = prefix.get('img') or prefix['img_path']
    folder = Path(dataset.data_root) / prefix
    found = sorted(folder.rglob('*.png')) or sorted(folder.rglob('*.jpg'))
    return [str(path) for path in found[:: max(1, len(found) // PICTURES)]][
        :PICTURES
    ]


def timed(*arguments: str, speed: bool) -> dict[str, float]:
    """Run the worker in a process of its own."""
    words = [sys.executable, str(WORKER), *arguments]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'{arguments[:3]}: {done.stderr.strip()[-500:]}')
    measured = json.loads(done.stdout.splitlines()[-1])
    if not speed:
        del measured['images_per_second']
    return measured


def points(config: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of the table."""
    return {
        name: round(metrics[key] * unit, 2)
        for name, key, unit in MODELS[config]
    }


def megabytes(paths: list[Path]) -> float:
    """Size of files."""
    return sum(path.stat().st_size for path in paths) / 1e6


def compare(
    steps: Steps,
    config: str,
    checkpoint: str,
    forms: list[Form],
    speed: bool,
) -> dict[str, Any]:
    """Measure a model in PyTorch and in all forms."""
    name = Path(config).stem
    pictures = pictures_of(config)
    metrics = steps.test(f'{name}, {PYTORCH}', config, checkpoint, '--fold')
    first = {
        'form': PYTORCH,
        'metrics': points(config, metrics),
        'size_mb': megabytes([Path(checkpoint)]),
        **timed('pytorch', config, checkpoint, *pictures, speed=speed),
    }
    results = [first]
    for form in forms:
        folder = exported(steps, config, checkpoint, form)
        flags = ['--engine', form.engine, *(['--bf16'] if form.bf16 else [])]
        title = f'{name}, {form.title}'
        metrics = steps.test(title, config, str(folder), *flags)
        arguments = [str(folder), form.engine, str(int(form.bf16))]
        results.append(
            {
                'form': form.title,
                'metrics': points(config, metrics),
                'size_mb': megabytes([folder / n for n in form.files]),
                **timed('exported', *arguments, *pictures, speed=speed),
            }
        )
    return {'name': name, 'config': config, 'results': results}


def exported(steps: Steps, config: str, checkpoint: str, form: Form) -> Path:
    """The exported folder of a form, made once for each precision."""
    stem = f'{Path(config).stem}_{form.precision}'
    folder = steps.folder / stem
    if not folder.exists():
        # Tracing takes most of the time, so one export has all formats.
        formats = {f.format for f in FORMS if f.precision == form.precision}
        flags = ['--format', *sorted(formats), '--precision', form.precision]
        words = [config, checkpoint, '--out', str(folder), *flags]
        if form.precision == 'int8':
            # The loss is shown in the table.
            words.append('--allow-loss')
        steps.run(f'{stem}, export', 'export.py', *words)
    return folder


def main() -> None:
    """Train what is not trained, measure and write the record."""
    args = parse_args()
    steps = Steps(args.folder.resolve(), [])
    forms = [form for form in FORMS if form.title in args.forms]
    with report_user_errors():
        if args.work_dirs is None:
            data = os.environ.get('DIGITS_ROOT', 'data/digits')
            steps.run('data', 'dataset/build_digits.py', '--root', data)
            train(steps, args.configs)
        work_dirs = args.work_dirs or steps.folder
        models = [
            compare(
                steps,
                config,
                checkpoint_of(config, work_dirs),
                forms,
                speed=args.speed,
            )
            for config in args.configs
        ]
        content = {
            'version': __version__,
            'machine': describe('cpu', torch.get_num_threads()),
            'models': models,
        }
        path = args.out / file_name(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + '\n')
    steps.console.print(f'Written to {path}; next: make tables')


if __name__ == '__main__':
    main()

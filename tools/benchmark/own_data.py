"""Train on each kind of own data, made from the embedded digits.

The digits are written in each layout that tools/new_config.py reads. A config
is made for each and trained with the tools for users. The classifier of the
class folders is trained first, and starts the others. The rows are added to
FOLDER/table.md one by one.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

from mmengine.config import Config

from mmtransxnet.benchmark.own_kinds import KINDS
from mmtransxnet.benchmark.pipeline import Steps
from mmtransxnet.engine import load_config
from mmtransxnet.own_data.reading import read

_HEADER = """\
| kind | task | found | lost | config lines | metric | minutes |
|---|---|---|---|---|---|---|
"""

_NAMES = {
    'accuracy/top1': 'top-1 {:.1f} %',
    'coco/bbox_mAP': 'box AP {:.3f}',
    'coco/segm_mAP': 'mask AP {:.3f}',
    'mIoU': 'mIoU {:.1f} %',
}


def parse_args() -> argparse.Namespace:
    """Read the folder and the length of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--folder', type=Path, default='work_dirs/own_data')
    add('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    add('--size', default='96', help='side of a scene in pixels')
    add('--train', default='160', help='number of training scenes')
    add('--val', default='48', help='number of validation scenes')
    add('--batch-size', default='4', help='but in classification')
    add('--epochs', type=int, default=3)
    add(
        '--start',
        type=Path,
        help='classifier that starts the others; trained first if not given',
    )
    return parser.parse_args()


def written(kind: str, steps: Steps) -> Path:
    """Write the digits in a layout."""
    data = steps.folder / 'kinds' / kind
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(exist_ok=True)
    KINDS[kind][0](steps.folder / 'digits', data)
    return data


def trained(
    kind: str, steps: Steps, args: argparse.Namespace, start: Path | None
) -> str:
    """Make a config for a kind and train it; return its row."""
    task = KINDS[kind][1]
    data = written(kind, steps)
    config = steps.folder / f'{kind}.py'
    batch = [] if start is None else ['--batch-size', args.batch_size]
    steps.run(
        f'{kind}, config',
        'new_config.py',
        *(str(data), '--out', str(config), '--task', task),
        *('--from-scratch', '--overwrite', *batch),
    )
    options = length(config, args)
    if start is not None:
        name = 'model.backbone.init_cfg'
        options += [
            f'{name}._delete_=True',
            f'{name}.type=Pretrained',
            f'{name}.checkpoint={start}',
        ]
    steps.train(kind, str(config), *options)
    lines = len(config.read_text().splitlines())
    cells = [
        kind.replace('_', ' '),
        task,
        *found_and_lost(data, task),
        str(lines),
        metric(config, steps.folder / kind),
        f'{steps.minutes[kind]:.1f}',
    ]
    return f'| {" | ".join(cells)} |\n'


def length(config: Path, args: argparse.Namespace) -> list[str]:
    """Options for a short training."""
    settings = load_config(str(config))
    if 'max_epochs' in settings.train_cfg:
        name, end = 'max_epochs', args.epochs
        steps = whole_steps(settings, args)
    else:
        name = 'max_iters'
        end = steps = whole_steps(settings, args)
    warmup = min(settings.param_scheduler[0].end, steps // 4)
    return [
        f'train_cfg.{name}={end}',
        f'train_cfg.val_interval={end}',
        f'param_scheduler.0.end={warmup}',
        f'param_scheduler.1.T_max={end}',
    ]


def whole_steps(settings: Config, args: argparse.Namespace) -> int:
    """Iterations of all epochs."""
    loader = settings.train_dataloader
    listed = Path(loader.dataset.ann_file).read_text()
    if loader.dataset.ann_file.endswith('.json'):
        count = len(json.loads(listed)['images'])
    else:
        count = len(listed.splitlines())
    return args.epochs * math.ceil(count / loader.batch_size)


def found_and_lost(data: Path, task: str) -> tuple[str, str]:
    """What was read, and what was not taken over."""
    collection = read(data, task)
    objects = sum(len(p.objects) for p in collection.pictures)
    found = f'{len(collection.pictures):,} pictures'
    if objects:
        found += f', {objects:,} objects'
    found += f', {len(collection.classes)} classes'
    lost = '; '.join(
        f'{count:,} x {reason}'
        for reason, count in collection.dropped.most_common()
    )
    return found, lost or 'nothing'


def metric(config: Path, work_dir: Path) -> str:
    """The metric that decides the best checkpoint, at the end."""
    name = load_config(str(config)).best
    latest = max(work_dir.glob('*/vis_data/scalars.json'))
    rows = map(json.loads, latest.read_text().splitlines())
    values = [row[name] for row in rows if name in row]
    # mmdet has no metrics where no box is found.
    return _NAMES[name].format(values[-1] if values else 0.0)


def main() -> None:
    """Write, train, and add a row for each kind."""
    args = parse_args()
    steps = Steps(args.folder.resolve(), [])
    digits = steps.folder / 'digits'
    steps.run(
        'digits',
        'dataset/build_digits.py',
        *('--root', str(digits), '--size', args.size),
        *('--train', args.train, '--val', args.val, '--renderings', '1'),
    )
    table = steps.folder / 'table.md'
    if not table.exists():
        table.write_text(_HEADER)
    start = args.start
    rest = [kind for kind in args.kinds if kind != 'class_folders']
    for kind in rest if start else ['class_folders', *rest]:
        row = trained(kind, steps, args, start)
        with table.open('a') as file:
            file.write(row)
        start = start or Path(
            (steps.folder / kind / 'last_checkpoint').read_text().strip()
        )
    steps.console.print(f'\n{table.read_text()}', soft_wrap=True)


if __name__ == '__main__':
    main()

"""The four commands of docs/own_data.md on each kind of data.

The embedded digits are written in each layout that tools/new_config.py reads.
The config that it writes is trained with the small network and fewer
iterations, reported and exported by the tools for users. The classifier of
the class folders starts the others, as published weights would.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.benchmark.experiments.small_net import use_small_net
from mmtransxnet.benchmark.experiments.trials import Trial
from mmtransxnet.benchmark.own_kinds import KINDS
from mmtransxnet.benchmark.pipeline import Steps
from mmtransxnet.engine import load_config
from mmtransxnet.utils.errors import UserError

FIRST = 'class_folders'
"""The kind whose classifier starts the others."""

SIZE = 96
"""Side of a scene in pixels."""

SCENES = dict(train=160, val=48)
EPOCHS = dict(classification=8, detection=5, segmentation=15)
BATCH = 4
"""Pictures in a batch, but in classification, where it is decided."""

CHANNELS = 64
"""Of necks and heads."""

METRICS = {
    'accuracy/top1': ('top-1', 1.0),
    'coco/bbox_mAP': ('box AP', 100.0),
    'coco/segm_mAP': ('mask AP', 100.0),
    'mIoU': ('mIoU', 1.0),
}
"""Titles of the metrics, and factors to per cent."""


def list_trials(kinds: Sequence[str]) -> list[Trial]:
    """A training of each kind, that of the class folders first."""
    known = [kind for kind in KINDS if kind in kinds]
    return [
        dict(
            kind=kind, epochs=EPOCHS[KINDS[kind][1]], size=SIZE, scenes=SCENES
        )
        for kind in sorted(known, key=lambda kind: kind != FIRST)
    ]


def build_digits(steps: Steps) -> None:
    """Build a small set of the digits for all kinds."""
    steps.run(
        'digits',
        'dataset/build_digits.py',
        *('--root', str(steps.folder / 'digits'), '--size', str(SIZE)),
        *('--train', str(SCENES['train']), '--val', str(SCENES['val'])),
        *('--renderings', '1'),
    )


def measure(
    trial: Trial, steps: Steps, look: Callable[[Path, str], dict[str, str]]
) -> dict[str, Any]:
    """Run the four commands on a kind.

    Args:
        trial: One of :func:`list_trials`.
        steps: In the folder of all trials; its digits are built.
        look: Describes a folder read for a task: what is found and lost.

    Raises:
        UserError: The classifier that starts this kind is not trained.
    """
    kind = trial['kind']
    task = KINDS[kind][1]
    data = _written(kind, steps.folder)
    config = steps.folder / f'{kind}.py'
    batch = [] if kind == FIRST else ['--batch-size', str(BATCH)]
    steps.run(
        f'{kind}, config',
        'new_config.py',
        *(str(data), '--out', str(config), '--task', task),
        *('--from-scratch', '--overwrite', *batch),
    )
    short = config.with_name(f'{kind}_short.py')
    settings = shortened(config, trial['epochs'], _start(kind, steps.folder))
    settings.dump(str(short))
    # What a stopped command left.
    runs, exported = (
        steps.folder / short.stem,
        steps.folder / 'exported' / kind,
    )
    for folder in (runs, exported):
        shutil.rmtree(folder, ignore_errors=True)
    last = steps.train(kind, str(short))
    steps.run(f'{kind}, report', 'report.py', str(runs))
    # There is none where nothing was found.
    best = next(runs.glob('best_*.pth'), last)
    steps.run(
        f'{kind}, export',
        'export.py',
        *(str(short), str(best), '--format', 'onnx', '--out', str(exported)),
    )
    name = settings.best
    return dict(
        task=task,
        algorithm=settings.model.type,
        **look(data, task),
        lines=len(config.read_text().splitlines()),
        metric=name,
        value=_last_value(name, runs),
        iterations=trial['epochs'] * _iterations_of_an_epoch(settings),
    )


def _written(kind: str, folder: Path) -> Path:
    """Write the digits in a layout."""
    data = folder / 'kinds' / kind
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(exist_ok=True)
    KINDS[kind][0](folder / 'digits', data)
    return data


def _start(kind: str, folder: Path) -> str | None:
    """The checkpoint that a kind starts from, None for the first."""
    if kind == FIRST:
        return None
    noted = folder / f'{FIRST}_short' / 'last_checkpoint'
    if not noted.exists():
        raise UserError(f'{kind} starts from {FIRST}: train that first')
    return noted.read_text().strip()


def shortened(path: Path, epochs: int, start: str | None) -> Config:
    """A written config with a small model and fewer iterations.

    Args:
        path: The config.
        epochs: Of the training.
        start: Checkpoint whose backbone starts it, None for random weights.
    """
    config = load_config(str(path))
    use_small_net(config)
    _narrow_heads(config.model)
    if start is not None:
        config.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=start, prefix='backbone.'
        )
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'RandomFlip':  # a mirrored digit is no valid digit
            step.prob = 0.0
    iterations = epochs * _iterations_of_an_epoch(config)
    name, end = 'max_epochs', epochs
    if 'max_iters' in config.train_cfg:
        name, end = 'max_iters', iterations
    config.train_cfg.update({name: end, 'val_interval': end})
    config.default_hooks.checkpoint.interval = end
    warmup, cosine = config.param_scheduler
    warmup.end = min(warmup.end, iterations // 10)
    cosine.T_max = end
    return config


def _narrow_heads(model: Any) -> None:
    """The neck and the heads of the configs for digits."""
    if 'in_channels' not in model.neck:
        return
    model.neck.out_channels = CHANNELS
    if 'decode_head' in model:
        levels = len(model.decode_head.in_channels)
        model.decode_head.update(
            in_channels=[CHANNELS] * levels, channels=CHANNELS
        )
        return
    narrow = dict(in_channels=CHANNELS, feat_channels=CHANNELS)
    if 'roi_head' not in model:
        model.bbox_head.update(narrow)
        return
    model.rpn_head.update(narrow)
    roi = model.roi_head
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        roi[name].out_channels = CHANNELS
    roi.bbox_head.update(in_channels=CHANNELS, fc_out_channels=4 * CHANNELS)
    roi.mask_head.update(
        in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=2
    )
    train, test = model.train_cfg, model.test_cfg
    train.rpn.sampler.num, train.rcnn.sampler.num = 128, 64
    train.rpn_proposal.update(nms_pre=400, max_per_img=100)
    test.rpn.update(nms_pre=300, max_per_img=100)
    test.rcnn.max_per_img = 30


def _iterations_of_an_epoch(config: Config) -> int:
    loader = config.train_dataloader
    listed = Path(loader.dataset.ann_file).read_text()
    if loader.dataset.ann_file.endswith('.json'):
        count = len(json.loads(listed)['images'])
    else:
        count = len(listed.splitlines())
    return math.ceil(count / loader.batch_size)


def _last_value(name: str, runs: Path) -> float:
    """A metric at the end of the last run."""
    latest = max(runs.glob('*/vis_data/scalars.json'))
    rows = map(json.loads, latest.read_text().splitlines())
    values = [row[name] for row in rows if name in row]
    # mmdet has no metrics where no box is found.
    return values[-1] if values else 0.0

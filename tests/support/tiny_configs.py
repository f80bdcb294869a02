"""The digits configs, shrunk to seconds: the tools are tested, not learning.

Written as configs that inherit, the way users adapt a config.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from tests.support.models import MICRO, fill_by_name
from tests.support.paths import ROOT
from tests.support.suite_configs import build, load

DIGITS = [str(digit) for digit in range(10)]

_HEADER = "_base_ = '{root}/configs/{base}_digits.py'\n"

_LOADERS = '\n'.join(
    f'{split}_dataloader = dict('
    'batch_size=2, num_workers=0, persistent_workers=False)'
    for split in ('train', 'val', 'test')
)

_CLASSIFIER = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{micro})),
    head=dict(in_channels=64))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""

_DETECTOR = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{micro})),
    neck=dict(in_channels=[16, 32, 48, 64]))
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""

_SEGMENTOR = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{micro})),
    neck=dict(in_channels=[16, 32, 48, 64]))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(96, 96), keep_ratio=True),
                dict(type='Resize', scale=(128, 128), keep_ratio=True),
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ]),
]
"""

_CONFIGS = dict(
    classifier=('classification/transxnet_t', _CLASSIFIER),
    detector=('detection/maskrcnn_transxnet_t', _DETECTOR),
    segmentor=('segmentation/sfpn_transxnet_t', _SEGMENTOR),
)


def write_configs(folder: Path) -> dict[str, Path]:
    """Write a tiny classifier's, detector's and segmentor's config."""
    paths = {}
    for name, (base, text) in _CONFIGS.items():
        paths[name] = folder / f'{name}.py'
        paths[name].write_text(
            (_HEADER + text).format(root=ROOT, base=base, micro=MICRO)
            + _LOADERS
        )
    return paths


def write_checkpoints(
    folder: Path, configs: Mapping[str, Path]
) -> dict[str, Path]:
    """Write a checkpoint of each tiny model, as the Runner does."""
    paths = {}
    for task, config in configs.items():
        model = fill_by_name(build(load(config)))
        content = {'state_dict': model.state_dict(), 'meta': {}}
        if task == 'classifier':  # the others say so in the config
            content['meta']['dataset_meta'] = {'classes': DIGITS}
        paths[task] = folder / f'{task}.pth'
        torch.save(content, paths[task])
    return paths

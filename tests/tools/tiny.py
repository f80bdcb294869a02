"""The digits configs, shrunk to seconds: the tools are tested, not learning.

Written as configs that inherit, the way users adapt a config.
"""

from pathlib import Path

from helpers import MICRO, ROOT

_LOADERS = '\n'.join(
    f'{split}_dataloader = dict('
    'batch_size=2, num_workers=0, persistent_workers=False)'
    for split in ('train', 'val', 'test')
)

_CLASSIFIER = """
_base_ = '{root}/configs/classification/transxnet_t_digits.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{micro})),
    head=dict(in_channels=64))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""

_DETECTOR = """
_base_ = '{root}/configs/detection/maskrcnn_transxnet_t_digits.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{micro})),
    neck=dict(in_channels=[16, 32, 48, 64]))
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""


def write_configs(folder: Path) -> tuple[Path, Path]:
    """Write a tiny classifier's and a tiny detector's config."""
    paths = folder / 'classifier.py', folder / 'detector.py'
    for path, text in zip(paths, (_CLASSIFIER, _DETECTOR), strict=True):
        path.write_text(text.format(root=ROOT, micro=MICRO) + _LOADERS)
    return paths

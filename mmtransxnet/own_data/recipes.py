"""The recipes of the suite that configs for own data start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mmengine.config import Config

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
)
from mmtransxnet.utils.paths import ROOT
from mmtransxnet.weights.published import FILES, SCHEME

ARCHS = ('t', 's', 'b')


@dataclass(frozen=True)
class Algorithm:
    """An algorithm and the configs of the suite that train it.

    Attributes:
        title: Its name in texts.
        task: ``classification``, ``detection`` or ``segmentation``.
        config: Its config below ``configs``, ``{}`` being the arch.
        scratch: The config of a short training from few pictures, for its
            learning rate.
        published: Start of the name of its published weights, None if there
            are none.
        new_heads: Names of the weights that depend on the classes.
        metric: Name of the value that tells the best checkpoint.
        least_gain: How much better a value must be to count as better, in
            its units.
        masks: Whether it needs masks.
    """

    title: str
    task: str
    config: str
    scratch: str
    published: str | None
    new_heads: tuple[str, ...]
    metric: str
    least_gain: float
    masks: bool = False

    def base(self, arch: str) -> str:
        """The config of a size, relative to ``configs``."""
        return self.config.format(arch)

    def weights(self, arch: str) -> str | None:
        """Published weights of the whole model, as ``transxnet://`` name."""
        if self.published is None:
            return None
        name = self.published.format(arch)
        return SCHEME + name if name in FILES else None


# RetinaNet's own has twice the rate, for a narrow head.
_SCRATCH_DETECTOR = 'detection/maskrcnn_transxnet_t_digits.py'

ALGORITHMS = dict(
    classifier=Algorithm(
        'classifier',
        CLASSIFICATION,
        'classification/transxnet_{}.py',
        'classification/transxnet_t_digits.py',
        '{}',
        ('head.fc.*',),
        'accuracy/top1',
        0.1,
    ),
    retinanet=Algorithm(
        'RetinaNet',
        DETECTION,
        'detection/retinanet_transxnet_{}.py',
        _SCRATCH_DETECTOR,
        'retinanet-{}',
        ('bbox_head.retina_cls.*',),
        'coco/bbox_mAP',
        0.001,
    ),
    maskrcnn=Algorithm(
        'Mask R-CNN',
        DETECTION,
        'detection/maskrcnn_transxnet_{}.py',
        _SCRATCH_DETECTOR,
        'maskrcnn-{}',
        (
            'roi_head.bbox_head.fc_cls.*',
            'roi_head.bbox_head.fc_reg.*',
            'roi_head.mask_head.conv_logits.*',
        ),
        'coco/segm_mAP',
        0.001,
        masks=True,
    ),
    cascade=Algorithm(
        'Cascade Mask R-CNN',
        DETECTION,
        'detection/cascade_maskrcnn_transxnet_{}_ms_3x.py',
        _SCRATCH_DETECTOR,
        None,
        (),
        'coco/segm_mAP',
        0.001,
        masks=True,
    ),
    sfpn=Algorithm(
        'Semantic FPN',
        SEGMENTATION,
        'segmentation/sfpn_transxnet_{}.py',
        'segmentation/sfpn_transxnet_t_digits.py',
        'sfpn-{}',
        ('decode_head.conv_seg.*',),
        'mIoU',
        0.1,
    ),
    upernet=Algorithm(
        'UperNet',
        SEGMENTATION,
        'segmentation/upernet_transxnet_{}.py',
        'segmentation/upernet_transxnet_t_digits.py',
        None,
        (),
        'mIoU',
        0.1,
    ),
)


def algorithms_of(task: str) -> list[str]:
    """Names of the algorithms of a task."""
    return [name for name, a in ALGORITHMS.items() if a.task == task]


@lru_cache
def read(config: str) -> Config:
    """Read a config of the suite; it must not be changed.

    Args:
        config: Path below ``configs``.
    """
    return Config.fromfile(str(ROOT / 'configs' / config))


def rate_of(config: str) -> tuple[float, int]:
    """Learning rate of a config, and the batch on all GPUs it is for."""
    content = read(config)
    rate: Any = content.optim_wrapper.optimizer.lr
    return rate, content.auto_scale_lr.base_batch_size


def size_of_pictures(config: str) -> Sequence[int]:
    """Long and short side that a detector's config resizes pictures to."""
    steps = read(config).test_pipeline
    return next(step.scale for step in steps if step.type == 'Resize')

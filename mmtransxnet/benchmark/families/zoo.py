"""The models of mmdet, mmseg and mmpretrain, one of each family.

A family is a folder of the configs that a library ships. Its model is built
without weights and made affordable for a CPU.
"""

import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')

# Exceptions where the smallest model by name is not typical of the family or
# takes another kind of input.
CHOSEN = {
    'mmdet/cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
    'mmdet/dcn': 'faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
    'mmdet/dcnv2': 'faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco',
    'mmdet/dyhead': 'atss_r50_fpn_dyhead_1x_coco',
    'mmdet/deepfashion': 'mask-rcnn_r50_fpn_15e_deepfashion',
    'mmdet/guided_anchoring': 'ga-faster-rcnn_r50-caffe_fpn_1x_coco',
    'mmdet/libra_rcnn': 'libra-faster-rcnn_r50_fpn_1x_coco',
    'mmdet/nas_fpn': 'retinanet_r50_nasfpn_crop640-50e_coco',
    'mmdet/fpg': 'faster-rcnn_r50_fpg-chn128_crop640-50e_coco',
    'mmdet/gcnet': 'mask-rcnn_r50-syncbn-gcb-r4-c3-c5_fpn_1x_coco',
    'mmdet/htc': 'htc_r50_fpn_1x_coco',
    'mmdet/nas_fcos': 'nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco',
    'mmdet/detectors': 'detectors_cascade-rcnn_r50_1x_coco',
    'mmdet/sort': (
        'faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval'
    ),
    'mmdet/v3det': 'faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x',
    'mmseg/fcn': 'fcn_r50-d8_4xb2-40k_cityscapes-512x1024',
    'mmseg/segmenter': 'segmenter_vit-t_mask_8xb1-160k_ade20k-512x512',
    'mmpretrain/clip': 'vit-base-p32_pt-64xb64_in1k',
    'mmpretrain/eva': 'eva-l-p14_8xb16_in1k-196px',
    'mmpretrain/vgg': 'vgg11_8xb32_in1k',
    'mmpretrain/blip': 'blip-base_8xb32_retrieval',
}

# Words in file names that indicate the size of a model.
_SMALL = (
    r'18|34|r50|50|nano|tiny|atto|small|xx?s|s|t|b0|b1|s0|s12|a0|'
    r'400mf|xxsmall|xsmall|128s|11|121|5m|l1|w18|hr18|hr18s'
)
_LARGE = (
    r'101|152|x101|x50|base|large|huge|giant|xlarge|xl|l|b|h|g|x|m|24|36|48|'
    r'64|104|7b|9b|swinl|swinb'
)
_AWAY = (
    r'tta|levir|amp|fp16|caffe|deploy|iou|384px|448px|560px|896|512d|dconv|dcn'
)


@dataclass(frozen=True)
class Family:
    """A folder of configs.

    Attributes:
        library: Import name of the library.
        name: Name of the folder.
    """

    library: str
    name: str

    def __str__(self) -> str:
        return f'{self.library}/{self.name}'

    @property
    def folder(self) -> Path:
        """Where its configs are."""
        return root(self.library) / 'configs' / self.name

    def configs(self) -> list[str]:
        """Names of its configs, in the order in which they are tried."""
        paths = sorted(self.folder.rglob('[!_]*.py'))
        names = [str(p.relative_to(self.folder))[:-3] for p in paths]
        chosen = CHOSEN.get(str(self))
        # Configs in subfolders need models trained with the others.
        return sorted(
            names,
            key=lambda name: (name != chosen, name.count('/'), *_cost(name)),
        )


def root(library: str) -> Path:
    """The folder of a library that holds its configs."""
    return Path(str(importlib.import_module(library).__file__)).parent / '.mim'


def list_families(library: str) -> list[Family]:
    """All families of an installed library, without base configs."""
    folders = sorted((root(library) / 'configs').iterdir())
    return [
        Family(library, folder.name)
        for folder in folders
        if folder.is_dir() and not folder.name.startswith('_')
    ]


def _cost(name: str) -> tuple[int, int, str]:
    """Estimate the model size of a config for sorting."""
    words = re.split(r'[_/\-]', name.lower())
    large = sum(bool(re.fullmatch(_LARGE, word)) for word in words)
    small = sum(bool(re.fullmatch(_SMALL, word)) for word in words)
    away = sum(bool(re.search(_AWAY, word)) for word in words)
    return large - small + away, len(name), name


class Unsupported(Exception):
    """A family that cannot be tried; the message says what it needs."""


def load(family: Family) -> tuple[str, Config]:
    """Read the config of a family that describes a model.

    Raises:
        Unsupported: None of them does.
    """
    # Configs refer to others relative to the folder of all configs.
    os.chdir(root(family.library))
    for name in family.configs():
        config = Config.fromfile(family.folder / f'{name}.py')
        if 'model' in config:
            if 'data_preprocessor' in config:
                # As the Runner sets it.
                config.model.setdefault(
                    'data_preprocessor', config.data_preprocessor
                )
            init_default_scope(config.get('default_scope', family.library))
            import_library(family.library)
            return name, config
    raise Unsupported('holds no config with a model')


def import_library(library: str) -> None:
    """Register the modules of a library."""
    for part in ('models', 'datasets'):
        importlib.import_module(f'{library}.{part}')


def walk(node: Any) -> Iterator[dict]:
    """All dicts inside a config."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list | tuple):
        for value in node.values() if isinstance(node, dict) else node:
            yield from walk(value)


def make_affordable(config: Config) -> None:
    """No pretrained weights, one process, small pictures, few proposals."""
    for node in walk(config.model):
        start = node.get('init_cfg')
        if isinstance(start, dict) and 'checkpoint' in start:
            node['init_cfg'] = None
        for key in ('pretrained', 'teacher_ckpt', 'pretrained_path'):
            if isinstance(node.get(key), str):
                node[key] = None
            elif node.get(key) is True:
                node[key] = False
        if 'batch_augments' in node:
            node['batch_augments'] = None
        if node.get('mode') == 'slide':
            node['mode'] = 'whole'
        if node.get('type') == 'MMSyncBN':  # cannot be reverted when built
            node['type'] = 'BN'
    for part, name in (('train_cfg', 'rpn_proposal'), ('test_cfg', 'rpn')):
        settings = config.model.get(part) or {}
        if settings.get(name):
            settings[name].update(nms_pre=64, max_per_img=32)
    for node in walk(config.model.get('train_cfg')):
        if 'num' in (node.get('sampler') or {}):
            node['sampler']['num'] = 16


def build(config: Config, size: int) -> Any:
    """Build the model with random weights for images of a size."""
    preprocessor = config.model.get('data_preprocessor')
    if config.get('default_scope') == 'mmseg' and preprocessor is not None:
        for key in ('size_divisor', 'test_cfg'):
            preprocessor.pop(key, None)
        preprocessor['size'] = (size, size)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()
    return model


# ------------------------------------------------------------------ steps
def train_step(model: Any, data: dict) -> float:
    """Loss and gradients of a batch.

    Returns:
        The loss.

    Raises:
        ArithmeticError: Something is not finite, or has no gradient.
    """
    # Information from the Runner; some losses use it for a warm-up.
    hub = MessageHub.get_current_instance()
    hub.update_info_dict(dict(iter=0, epoch=0, max_iters=1, max_epochs=1))
    model.train()
    data = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    if not loss.isfinite():
        raise ArithmeticError(f'the loss is {loss.item()}')
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    gradients = {n: g for n, g in grads.items() if g is not None}
    if not gradients:
        raise ArithmeticError('no parameter has a gradient')
    non_finite = [n for n, g in gradients.items() if not g.isfinite().all()]
    if non_finite:
        raise ArithmeticError(f'the gradient of {non_finite[0]} is not finite')
    return loss.item()


def predict(model: Any, data: dict) -> int:
    """Predict a batch; returns the number of results."""
    model.eval()
    if isinstance(data['inputs'], dict):  # semi-supervised
        data = {key: branches['sup'] for key, branches in data.items()}
    with torch.no_grad():
        data = model.data_preprocessor(data, False)
        return len(model(**data, mode='predict'))

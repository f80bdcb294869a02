"""Files of exactly the published formats, at micro size."""

import argparse
from functools import cache

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from safetensors.torch import save_file

from tests.support import suite_configs
from tests.support.models import micro_model
from tests.support.suite_configs import micro_config

CLASSES = 10
SIZE = 64
HEAD = 'classifier.2.weight'


def classification_state(arch=None, image_size=SIZE, classes=CLASSES):
    """Weights under the names of the published classifiers."""
    # Stage outputs have no norm there; the classifier has one.
    model = micro_model(image_size, arch, out_indices=(3,))
    state = {
        name.replace('norm6.', 'classifier.0.'): value
        for name, value in model.state_dict().items()
    }
    width = model.out_channels[0]
    state[HEAD] = torch.randn(classes, width, 1, 1)
    state['classifier.2.bias'] = torch.randn(classes)
    return state


def other(state):
    """Other weights under the same names."""
    return {name: value + 1 for name, value in state.items()}


def training_dict(state):
    """What timm's trainer saves, which the authors used."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter], lr=2e-3)
    parameter.sum().backward()
    optimizer.step()
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    scaler.scale(torch.ones(1))  # makes its state
    args = argparse.Namespace(
        model='transxnet_t',
        lr=2e-3,
        decay_epochs=[30, 60],
        mean=None,
        amp=True,
        img_size=(3, 224, 224),
        extra={'drop_path': 0.1},
    )
    return dict(
        epoch=298,
        arch='transxnet_t',
        state_dict=state,
        optimizer=optimizer.state_dict(),
        version=2,
        args=args,
        amp_scaler=scaler.state_dict(),
        state_dict_ema=other(state),
        metric=np.float64(81.6),
    )


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def _save(content, path):
    torch.save(content, path)


# How a published classifier may come; each writes its file.
FORMATS = {
    'training dict': lambda s, p: _save(training_dict(s), p),
    'bare': _save,
    'model': lambda s, p: _save(dict(model=s, epoch=299), p),
    'model. prefix': lambda s, p: _save(prefixed(s, 'model.'), p),
    'module. prefix': lambda s, p: _save(
        dict(state_dict=prefixed(s, 'module.')), p
    ),
    'old torch': lambda s, p: torch.save(
        training_dict(s), p, _use_new_zipfile_serialization=False
    ),
    'safetensors': lambda s, p: save_file(s, p, {'format': 'pt'}),
}


def dense_dict(state):
    """What mmdet 2.28 and mmseg 0.30 save through mmcv 1.x."""
    meta = dict(
        mmdet_version='2.28.2+',
        CLASSES=('person', 'bicycle'),
        PALETTE=np.array([[220, 20, 60], [119, 11, 32]], np.uint8),
        env_info='sys.platform: linux\nPython: 3.8',
        config="model = dict(type='RetinaNet')\n",
        seed=0,
        exp_name='retinanet_transxnet_t.py',
        epoch=12,
        iter=np.int64(87960),
        time='Mon Sep  4 10:00:00 2023',
        hook_msgs=dict(last_ckpt='epoch_12.pth', best_score=0.431),
    )
    optimizer = dict(state={}, param_groups=[dict(lr=1e-4, params=[0])])
    return dict(meta=meta, state_dict=state, optimizer=optimizer)


def runner_dict(state):
    """What our own runs save."""
    hub = dict(log_scalars={'train/loss': HistoryBuffer([0.5], [1])})
    return dict(
        meta=dict(epoch=3, iter=30, dataset_meta={'classes': ('a', 'b')}),
        state_dict=state,
        message_hub=hub,
        optimizer=dict(state={}, param_groups=[dict(lr=1e-4, params=[0])]),
    )


DENSE = {
    'retinanet': 'detection/retinanet_transxnet_t',
    'maskrcnn': 'detection/maskrcnn_transxnet_t',
    'sfpn': 'segmentation/sfpn_transxnet_t',
}


@cache
def _config(name):
    """A model of our configs around the micro backbone, with small heads."""
    config = micro_config(name)
    model = config.model
    if 'roi_head' in model:
        model.roi_head.bbox_head.fc_out_channels = 32
    if model.type == 'ImageClassifier':
        model.head.num_classes = CLASSES
        model.train_cfg = None
        model.head.pop('topk', None)
    return config


def build(name, init_cfg=None):
    """A model of our configs at micro size, as a run builds it."""
    return suite_configs.build(_config(name), init_cfg=init_cfg)


def classifier():
    return build('classification/transxnet_t')

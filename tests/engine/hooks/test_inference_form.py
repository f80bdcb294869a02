"""Folded models of all three tasks answer as before; the hook undoes it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS
from torch import nn

from mmtransxnet.models import fold
from mmtransxnet.models.inference_form import FoldedBlock
from tests.support.compare import assert_all_close
from tests.support.models import fill_by_name
from tests.support.suite_configs import build, micro_config

CONFIGS = [
    'classification/transxnet_t',
    'detection/retinanet_transxnet_t',
    'detection/maskrcnn_transxnet_t',
    'segmentation/sfpn_transxnet_t',
    'segmentation/upernet_transxnet_t',
]


def tiny_model(path):
    """The model of a config with the micro backbone, in evaluation."""
    return fill_by_name(build(micro_config(path))).eval()


def tensors(value):
    """All tensors in what a model returns."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in tensors(v)]


@pytest.mark.distribution
@pytest.mark.parametrize('path', CONFIGS)
def test_models_of_all_tasks_compute_the_same(path):
    model = tiny_model(path)
    image = torch.randn(2, 3, 96, 64)

    def run(model):
        with torch.no_grad():
            if hasattr(model, 'roi_head'):
                features = model.extract_feat(image)
                return tensors([features, model.rpn_head(features)])
            return tensors(model(image, mode='tensor'))

    folded = fold(model)
    assert any(isinstance(m, FoldedBlock) for m in folded.modules())
    assert_all_close(run(folded), run(model), 1e-4, path)


class _Wrapper(MMDistributedDataParallel):
    """What the Runner sees in a distributed run, without its processes."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module


@pytest.mark.parametrize('wrapped', [False, True])
def test_hook_folds_for_the_test_only(wrapped):
    model = tiny_model(CONFIGS[0]).train()
    runner = SimpleNamespace(model=_Wrapper(model) if wrapped else model)
    hook = HOOKS.build(dict(type='FoldHook'))

    def inner():
        return runner.model.module if wrapped else runner.model

    hook.before_test_epoch(runner)
    assert any(isinstance(m, FoldedBlock) for m in inner().modules())
    hook.after_test_epoch(runner)
    assert inner() is model

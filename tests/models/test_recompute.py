"""Keeping less for the backward pass changes nothing else."""

import pytest
import torch
from helpers import (
    assert_all_close,
    assert_same_buffers,
    assert_same_gradients,
    buffers,
    fill_by_name,
    gradients,
    make_input,
    micro,
    probe_loss,
)

from mmtransxnet import TransXNet
from mmtransxnet.models import recompute


def step(kwargs, shape):
    """Outputs, gradients, buffers and kept bytes of two training steps."""
    model = fill_by_name(TransXNet(micro(), 64, **kwargs)).train()
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for seed in range(2):
        torch.manual_seed(seed)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            outs = model(make_input(seed, shape))
        probe_loss(outs).backward()
    return outs, gradients(model), buffers(model), sum(kept.values())


@pytest.mark.parametrize(
    ('shape', 'kwargs'),
    [
        ((2, 3, 96, 64), {}),
        ((2, 3, 64, 64), dict(drop_path_rate=0.5, drop_rate=0.3)),
        ((1, 3, 64, 64), {}),
        ((2, 3, 64, 64), dict(norm_eval=True)),
        ((2, 3, 64, 64), dict(frozen_stages=2)),
        ((2, 3, 64, 64), dict(conv_norm_cfg=dict(type='SyncBN'))),
        ((2, 3, 64, 64), dict(with_cp=True)),
    ],
    ids=['plain', 'drops', 'one', 'norm_eval', 'frozen', 'SyncBN', 'with_cp'],
)
def test_large_maps_are_trained_the_same(monkeypatch, shape, kwargs):
    outs, grads, state, kept = step(kwargs, shape)
    monkeypatch.setattr(recompute, '_LARGE', 100)
    outs1, grads1, state1, kept1 = step(kwargs, shape)
    assert_all_close(outs1, outs, 1e-6, 'outputs')
    assert_same_gradients(grads1, grads, 1e-5)
    assert_same_buffers(state1, state, 1e-6)
    if not kwargs:
        assert kept1 < 0.75 * kept

"""Keeping less for the backward pass changes nothing else."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mmtransxnet import TransXNet
from mmtransxnet.kernels.batch_norm import synchronised_norms
from mmtransxnet.kernels.settings import BY_DEVICE, UNMEASURED, settings_for
from tests.support.compare import (
    assert_all_close,
    assert_same_buffers,
    assert_same_gradients,
)
from tests.support.models import (
    buffers,
    gradients,
    make_input,
    micro,
    micro_model,
    probe_loss,
)


def step(kwargs, shape):
    """Outputs, gradients, buffers and kept bytes of two training steps.

    In float64: some gradients are zero but for rounding, in which the ways to
    compute them differ.
    """
    model = micro_model(**kwargs).double().train()
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for seed in range(2):
        torch.manual_seed(seed)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            outs = model(make_input(seed, shape).double())
        probe_loss(outs).backward()
    return outs, gradients(model), buffers(model), sum(kept.values())


@contextmanager
def recomputing(above):
    """The CPU recomputes what has more values than this."""
    settings = replace(BY_DEVICE['cpu'], recompute_above=above)
    with settings_for('cpu', settings):
        yield


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
        ((2, 3, 64, 64), dict(with_cp=True, act_cfg=dict(type='ReLU'))),
    ],
    ids=[
        'plain',
        'drops',
        'one',
        'norm_eval',
        'frozen',
        'SyncBN',
        'with_cp',
        'in place',
    ],
)
def test_large_maps_are_trained_the_same(shape, kwargs):
    outs, grads, state, kept = step(dict(kwargs, recompute='off'), shape)
    forced = step(dict(kwargs, recompute='on'), shape)
    with recomputing(above=100):
        large = step(kwargs, shape)
    for outs1, grads1, state1, kept1 in (forced, large):
        assert_all_close(outs1, outs, 1e-10, 'outputs')
        assert_same_gradients(grads1, grads, 1e-9)
        assert_same_buffers(state1, state, 1e-6)
        if not kwargs:
            assert kept1 < 0.75 * kept


def test_recompute_is_off_where_nothing_was_measured():
    """A GPU is not told to compute again what it has memory for."""
    shape = (2, 3, 64, 64)
    off = step(dict(recompute='off'), shape)[3]
    with recomputing(above=None):
        assert step({}, shape)[3] == off
    with settings_for('cpu', UNMEASURED):
        plain = step(dict(recompute='off'), shape)[3]
        assert step({}, shape)[3] == plain
        assert step(dict(recompute='on'), shape)[3] < 0.8 * plain


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="recompute='yes' is not one of off"):
        TransXNet(micro(), 64, recompute='yes')


@pytest.mark.parametrize('kwargs', [dict(with_cp=True), dict(recompute='on')])
def test_two_backward_passes(kwargs):
    model = micro_model(**kwargs).train()
    outs = model(make_input(0, (2, 3, 64, 64)))
    state = buffers(model)
    probe_loss(outs).backward(retain_graph=True)
    once = gradients(model)
    model.zero_grad()
    probe_loss(outs).backward()
    assert_same_gradients(gradients(model), once, 1e-6)
    assert_same_buffers(buffers(model), state, 0)


@pytest.mark.parametrize(
    'part',
    [
        'norm2',
        'mlp',
        'mlp.fc1',
        'mlp.fc1.0',
        'mlp.fc1.1',
        'mlp.dwconv',
        'mlp.norm',
        'mlp.fc2',
        'mlp.fc2.1',
        'layer_scale_2',
        'token_mixer.proj',
        'token_mixer.proj.3',
    ],
)
def test_who_listens_to_a_container_is_called(part):
    model = micro_model(recompute='on').train()
    heard = []
    container = model.network[0][0].get_submodule(part)
    container.register_forward_hook(lambda *_: heard.append(1))
    model(make_input(0, (2, 3, 64, 64)))
    assert heard == [1]


class Halved(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) / 2


@pytest.mark.parametrize('part', ['mlp.fc1', 'token_mixer.proj'])
def test_what_takes_a_containers_place_is_called(part):
    def outs(mode):
        model = micro_model(recompute=mode).train()
        block = model.network[0][0]
        parent, _, child = part.rpartition('.')
        parent = block.get_submodule(parent)
        setattr(parent, child, Halved(getattr(parent, child)))
        return model(make_input(0, (2, 3, 64, 64)))

    # Before torch 2.8, 1.7e-6.
    limit = 1e-5 if torch.__version__ < '2.8' else 1e-6
    assert_all_close(outs('on'), outs('off'), limit, part)


# --------------------------------------------- norms that ask other processes
class AskingNorm(nn.BatchNorm2d):
    """Not one of torch's own, as norms that wait for others are not."""

    calls = 0

    def forward(self, x):
        AskingNorm.calls += 1
        return super().forward(x)


def asking(model):
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = AskingNorm
    return model


def calls_of_step(shape, **kwargs):
    """Calls of such norms in a step of the T backbone, without values."""
    settings = replace(BY_DEVICE['cpu'], fast_depthwise=False)
    AskingNorm.calls = 0
    with torch.device('meta'), settings_for('meta', settings):
        model = asking(TransXNet('t', **kwargs)).train()
        outs = model(torch.empty(shape))
        sum(out.sum() for out in outs).backward()
    return AskingNorm.calls


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(recompute='on'),
        dict(frozen_stages=2, with_cp=True),
    ],
    ids=str,
)
def test_norms_that_ask_are_called_equally_often_for_all_shapes(kwargs):
    """IDConv's twice, the others once: nothing depends on the shape."""
    shapes = [(2, 3, 800, 864), (2, 3, 800, 928)]
    counts = [calls_of_step(shape, **kwargs) for shape in shapes]
    # Ten a block, two less without a reduction, and stem and downsampling.
    assert counts == [10 * 15 + 8 * 3 + 4] * 2


def test_norms_that_ask_are_not_asked_again():
    """Values, gradients and statistics are those without recomputation."""
    shape = (2, 3, 96, 64)
    results = []
    for kwargs in ({}, dict(with_cp=True)):
        AskingNorm.calls = 0
        model = asking(micro_model(**kwargs))
        outs = model.train()(make_input(0, shape))
        probe_loss(outs).backward()
        results.append((outs, gradients(model), buffers(model)))
        results[-1] += (AskingNorm.calls,)
    (outs, grads, state, calls), other = results
    assert_all_close(other[0], outs, 1e-6, 'outputs')
    assert_same_gradients(other[1], grads, 1e-5)
    assert_same_buffers(other[2], state, 1e-6)
    assert other[3] == calls


def test_norms_without_their_gpu_ask_nobody():
    """What mmengine makes of SyncBN on CPUs is as torch's own."""
    model = TransXNet(micro(), 64, conv_norm_cfg=dict(type='SyncBN')).train()
    assert synchronised_norms(model)
    assert not synchronised_norms(revert_sync_batchnorm(model))


# ---------------------------------------------------------- changed networks
class Adapter(nn.Module):
    """A convolution with a branch that drops values, as adapters have."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x) + F.dropout(self.base(x), 0.5, True)


def adapted(*path):
    def change(block):
        parent = block.get_submodule(path[0])
        parent[path[1]] = Adapter(parent[path[1]])

    return change


def longer(block):
    block.mlp.fc2.append(nn.Hardtanh(-0.1, 0.1))


def averaging(block):
    block.with_cp = True
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None


@pytest.mark.parametrize(
    'change',
    [
        adapted('mlp.fc1', 0),
        adapted('mlp.fc2', 0),
        adapted('token_mixer.proj', 3),
        longer,
        averaging,
        lambda block: parametrizations.spectral_norm(block.mlp.fc1[0]),
    ],
    ids=['fc1', 'fc2', 'proj', 'longer', 'averaging', 'spectral_norm'],
)
def test_a_changed_network_is_trained_the_same(change):
    def run(mode):
        model = micro_model(recompute=mode).double().train()
        torch.manual_seed(0)
        change(model.network[0][0])
        outs = model(make_input(0, (2, 3, 64, 64)).double())
        probe_loss(outs).backward()
        return outs, gradients(model), buffers(model)

    outs, grads, state = run('on')
    expected, expected_grads, expected_state = run('off')
    assert_all_close(outs, expected, 1e-10, 'outputs')
    assert_same_gradients(grads, expected_grads, 1e-9)
    assert_same_buffers(state, expected_state, 1e-10)

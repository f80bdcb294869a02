"""Maps lie in memory with their channels last on CPUs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtransxnet.kernels.channels_last import GELU, build_activation
from mmtransxnet.kernels.settings import UNMEASURED, settings_for
from mmtransxnet.models.block import Block
from mmtransxnet.models.ms_ffn import MSFFN
from mmtransxnet.models.token_mixer import DMixer
from tests.support.compare import assert_close
from tests.support.models import make_input, micro_model


def channels_last(x):
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_gelu_sees_contiguous_values(approximate, monkeypatch):
    """Otherwise PyTorch does not use oneDNN, which takes half the time."""
    seen = []
    gelu = F.gelu
    monkeypatch.setattr(
        F, 'gelu', lambda x, **kw: seen.append(x) or gelu(x, **kw)
    )
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    act = GELU(approximate)
    out = act(channels_last(x))
    assert seen[0].is_contiguous()
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = gelu(x, approximate=approximate)
    assert_close(out, expected, 1e-6, 'output')
    grad = torch.randn_like(out)
    mine = torch.autograd.grad(out, x, grad)[0]
    assert_close(
        mine, torch.autograd.grad(expected, x, grad)[0], 1e-6, 'gradient'
    )


@pytest.mark.parametrize('shape', [(4,), (2, 3), (2, 3, 4), (2, 1, 3, 3)])
def test_gelu_of_other_shapes(shape):
    x = torch.randn(shape)
    assert torch.equal(GELU()(x), F.gelu(x))


def test_gelu_is_built_with_its_options():
    act = build_activation(dict(type='GELU', approximate='tanh'))
    assert type(act) is GELU
    assert act.approximate == 'tanh'
    assert type(build_activation(dict(type='ReLU'))) is nn.ReLU


@pytest.mark.parametrize('training', [True, False])
def test_all_maps_of_the_network_are_channels_last(training):
    model = micro_model(32).train(training)
    orders = []
    for module in model.modules():
        if isinstance(module, Block | MSFFN | DMixer):
            module.register_forward_hook(
                lambda _, args, out: orders.append(
                    (args[0].stride(1), out.stride(1))
                )
            )
    outs = model(make_input(0, (2, 3, 96, 64)))
    assert len(orders) >= 3 * 4
    assert set(orders) == {(1, 1)}
    assert all(
        out.is_contiguous(memory_format=torch.channels_last) for out in outs
    )


def test_other_devices_keep_their_order():
    model = micro_model(32)
    with settings_for('cpu', UNMEASURED):
        outs = model(make_input(0, (2, 3, 64, 64)))
    assert outs[0].is_contiguous()

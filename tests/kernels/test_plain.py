"""The switch that leaves the formula alone."""

import pytest
import torch

from mmtransxnet.kernels import depthwise, recompute
from mmtransxnet.kernels.settings import plain
from tests.support.compare import assert_all_close, assert_same_gradients
from tests.support.models import (
    gradients,
    make_input,
    micro_model,
    probe_loss,
)

# Not the design size: the tables are resized.
SHAPE = (2, 3, 96, 80)


def step(model):
    outs = model(make_input(0, SHAPE))
    probe_loss(outs).backward()
    return outs


@pytest.fixture
def no_kernels(monkeypatch):
    """Kernels that cannot be called."""

    def fail(*_, **__):
        raise AssertionError('a kernel was called')

    monkeypatch.setattr(depthwise._DepthwiseConv, 'apply', fail)
    monkeypatch.setattr(depthwise, '_add_merged', fail)
    monkeypatch.setattr(depthwise, '_scale', fail)
    monkeypatch.setattr(recompute, 'recompute', fail)
    monkeypatch.setattr(torch.ops.mmtransxnet, 'position_attention', fail)


def test_no_kernel_is_called(no_kernels):
    model = micro_model(recompute='on').train()
    with pytest.raises(AssertionError, match='a kernel was called'):
        step(model)
    with plain():
        step(model)


def test_results_are_equal():
    model, twin = (micro_model(recompute='on').train() for _ in range(2))
    with plain():
        expected = step(twin)
    assert_all_close(step(model), expected, 1e-5, 'outputs')
    assert_same_gradients(gradients(model), gradients(twin), 1e-3, 1e-4)

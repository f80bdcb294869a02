"""Training with a compiled backbone (the flag --compile)."""

import copy
import functools
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmtransxnet.engine import UserError, check_compiler
from mmtransxnet.engine.hooks.compile import CompileHook
from tests.support.models import gradients, micro_model


def test_the_same_step(monkeypatch):
    """One graph; names, gradients and statistics as without."""
    model = nn.Module()
    model.backbone = micro_model().train()
    plain = copy.deepcopy(model)
    seen = []

    def graph(module, inputs):
        seen.append(module)
        return module.forward

    monkeypatch.setattr(
        torch, 'compile', functools.partial(torch.compile, backend=graph)
    )
    CompileHook().before_train(SimpleNamespace(model=model))
    image = torch.randn(2, 3, 64, 64)
    for one in (model, plain):
        sum(out.square().mean() for out in one.backbone(image)).backward()
    assert len(seen) == 1
    assert model.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(
        gradients(model), gradients(plain), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        dict(model.named_buffers()),
        dict(plain.named_buffers()),
        rtol=1e-4,
        atol=1e-5,
    )


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(
        'mmtransxnet.engine.hooks.compile.get_device', lambda: 'cpu'
    )
    with pytest.raises(UserError, match=r'needs a C\+\+ compiler'):
        check_compiler()
    monkeypatch.setattr(
        'mmtransxnet.engine.hooks.compile.get_device', lambda: 'cuda'
    )
    check_compiler()

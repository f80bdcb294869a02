"""One way to build the model of a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmtransxnet.utils.build import build_model


@pytest.fixture
def given(monkeypatch):
    """What the registry is asked to build."""
    configs = []

    def build(config):
        configs.append(config)
        return nn.Linear(2, 3)

    monkeypatch.setattr(MODELS, 'build', build)
    return configs


def test_no_file_is_asked_for(given):
    start = dict(type='Pretrained', checkpoint='gone.pth')
    config = Config(
        dict(
            model=dict(
                type='A',
                backbone=dict(type='B', init_cfg=start),
                heads=[dict(type='C', pretrained='gone.pth', channels=(1, 2))],
            ),
        )
    )
    build_model(config)
    assert given == [
        dict(
            type='A',
            backbone=dict(type='B'),
            heads=[dict(type='C', channels=(1, 2))],
        )
    ]
    assert config.model.backbone.init_cfg == start


@pytest.mark.parametrize('own', [None, dict(type='D')])
def test_preprocessor_as_the_runner_gives_it(given, own):
    model = dict(type='A', **(dict(data_preprocessor=own) if own else {}))
    build_model(Config(dict(model=model, data_preprocessor=dict(type='E'))))
    expected = own or dict(type='E')
    assert given[0].data_preprocessor == expected


def test_device(given):
    config = Config(dict(model=dict(type='A')))
    assert build_model(config).weight.device == torch.device('cpu')
    assert build_model(config, 'meta').weight.is_meta

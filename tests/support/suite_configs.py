"""All configs, and the models they describe."""

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmtransxnet  # noqa: F401
from tests.support.paths import ROOT

CONFIGS = sorted(
    path.relative_to(ROOT) for path in (ROOT / 'configs').glob('[!_]*/*.py')
)


def load(path) -> Config:
    config = Config.fromfile(ROOT / Path(path))
    init_default_scope(config.default_scope)
    return config


def build(config: Config, device: str = 'cpu') -> torch.nn.Module:
    """Build the model without fetching published weights."""
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    preprocessor = config.get('data_preprocessor')
    if preprocessor is not None:
        model.setdefault('data_preprocessor', preprocessor)
    with torch.device(device):
        return MODELS.build(model)

"""All configs, and the models they describe."""

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmtransxnet  # noqa: F401
from tests.support.models import MICRO, micro
from tests.support.paths import ROOT

CONFIGS = sorted(
    path.relative_to(ROOT) for path in (ROOT / 'configs').glob('[!_]*/*.py')
)


def load(path) -> Config:
    config = Config.fromfile(ROOT / Path(path))
    init_default_scope(config.default_scope)
    return config


def micro_config(name: str) -> Config:
    """A config of the suite, such as ``'classification/transxnet_t'``.

    Its model has the micro backbone for 64 pixels and no weights to fetch.
    """
    config = load(f'configs/{name}.py')
    model = config.model
    channels = MICRO['embed_dims']
    model.backbone.update(arch=micro(), init_cfg=None, image_size=64)
    # Necks start at the stage their config says, UPerNet's head has none.
    reader = model.get('neck') or model.get('decode_head')
    if reader and 'in_channels' in reader:
        reader.in_channels = channels[-len(reader.in_channels) :]
    if model.get('auxiliary_head'):
        model.auxiliary_head.in_channels = channels[2]
    if config.default_scope == 'mmpretrain':
        model.head.in_channels = channels[-1]
    return config


def build(
    config: Config, device: str = 'cpu', init_cfg: dict | None = None
) -> torch.nn.Module:
    """Build the model, whose backbone starts from ``init_cfg`` only."""
    init_default_scope(config.default_scope)
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = init_cfg
    preprocessor = config.get('data_preprocessor')
    if preprocessor is not None:
        model.setdefault('data_preprocessor', preprocessor)
    with torch.device(device):
        return MODELS.build(model)

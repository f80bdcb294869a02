"""Building the model of a config."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn


def build_model(config: Config, device: str = 'cpu') -> nn.Module:
    """Build the model of a config without loading pretrained weights.

    Args:
        config: With ``model``, and ``default_scope`` and ``data_preprocessor``
            if needed, as for the Runner.
        device: Device of its parameters; on ``'meta'`` they need no memory.

    Returns:
        The model in training mode, its weights not initialised.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = ConfigDict(without_init(config.model))
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    with torch.device(device):
        return MODELS.build(model)


def without_init(value: Any) -> Any:
    """A config without the files that models start from."""
    if isinstance(value, Mapping):
        return {
            key: without_init(item)
            for key, item in value.items()
            if key not in ('init_cfg', 'pretrained')
        }
    if isinstance(value, list | tuple):
        return type(value)(without_init(item) for item in value)
    return value

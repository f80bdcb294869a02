"""Micro models, their exports, and pictures for them."""

import torch
from torch import Tensor

from tests.support.models import fill_by_name, micro
from tests.support.suite_configs import build, micro_config


def short_config(name: str):
    """A micro config with one block a stage, for speed.

    Tracing costs seconds a block.
    """
    config = micro_config(name)
    config.model.backbone.arch = micro(layers=[1, 1, 1, 1])
    return config


def short_model(name: str):
    """Its model with known weights, in evaluation mode."""
    return fill_by_name(build(short_config(name))).eval()


def pictures(*shape: int) -> Tensor:
    """Random pictures ``(B, H, W)`` as a graph takes them."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(
        256, (*shape, 3), dtype=torch.uint8, generator=generator
    )

"""LayerScale in one pass over the map."""

from typing import Any

import torch
from torch import Tensor

from mmtransxnet.kernels.settings import settings_of, without_autocast


def scale_and_shift(layer: Any, x: Tensor) -> Any:
    """Compute ``weight * x + bias`` by one operator.

    Args:
        layer: A :class:`~mmtransxnet.models.layers.LayerScale`.
        x: Feature map ``(B, C, H, W)``.
    """
    if not settings_of(x).fused_scale:
        return NotImplemented
    weight, bias = layer.weight.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    # Autocast would convert the map in a pass of its own.
    with without_autocast(x):
        return torch.addcmul(bias, x, weight)

"""The order in which maps lie in memory: channels last where that is faster.

On CPUs, depthwise convolutions, norms, and products over the channels are
faster for maps whose channels lie next to each other, and attention needs no
copies of queries, keys and values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.settings import settings_of


def in_fast_order(x: Tensor) -> Tensor:
    """Return a map ``(B, C, H, W)`` in the device's faster memory format."""
    if not torch.jit.is_scripting():
        return _in_order_of_device(x)
    return x


def _in_order_of_device(x: Tensor) -> Tensor:
    # A compiler chooses the order itself.
    if settings_of(x).channels_last and not torch.compiler.is_compiling():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _in_memory_order(act: Any, x: Tensor) -> Any:
    """Apply GELU to a channels-last map as to a contiguous one.

    PyTorch uses the fast GELU of oneDNN for contiguous tensors only.
    """
    if (
        x.dim() != 4
        or not settings_of(x).channels_last
        or torch.compiler.is_compiling()
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return NotImplemented
    y = F.gelu(x.permute(0, 2, 3, 1), approximate=act.approximate)
    return y.permute(0, 3, 1, 2)


class GELU(nn.GELU):
    """GELU, fast for both memory formats."""

    @computed_by(_in_memory_order)
    def forward(self, x: Tensor) -> Tensor:
        """Activate a tensor of any shape."""
        return F.gelu(x, approximate=self.approximate)


def build_activation(act_cfg: dict) -> nn.Module:
    """Build an activation from a config, by mmcv.

    Args:
        act_cfg: Config of the activation.
    """
    act = build_activation_layer(act_cfg)
    return GELU(act.approximate) if type(act) is nn.GELU else act

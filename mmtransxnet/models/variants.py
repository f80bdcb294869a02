"""Token mixers that lack a part of D-Mixer, to measure what it is worth.

They are chosen by config: ``token_mixer_cfg=dict(type='StaticMixer')`` of
:class:`~mmtransxnet.TransXNet`. MS-FFN with one size of kernel needs no class:
``ffn_cfg=dict(type='MSFFN', kernel_sizes=(3,))``.
"""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtransxnet.kernels.depthwise import DepthwiseConv2d
from mmtransxnet.models.token_mixer import DMixer


@MODELS.register_module()
class StaticMixer(DMixer):
    """D-Mixer with a depthwise convolution instead of IDConv.

    The same learned kernel for all samples, of the same size.

    Args:
        channels: Number of channels C, even.
        kernel_size: Kernel size of the convolution.
        kwargs: Other arguments of D-Mixer.
    """

    def __init__(self, channels: int, kernel_size: int, **kwargs) -> None:
        super().__init__(channels, kernel_size, **kwargs)
        static: Any = DepthwiseConv2d(channels // 2, kernel_size)
        self.local_unit = static


@MODELS.register_module()
class LocalMixer(DMixer):
    """D-Mixer without attention: the second half passes unchanged."""

    uses_pos_bias = False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        del self.global_unit

    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Mix tokens of ``(B, C, H, W)``; the position bias is not read."""
        x1, x2 = x.chunk(2, dim=1)
        return self.enhance(torch.cat((self.local_unit(x1), x2), dim=1))


@MODELS.register_module()
class UnenhancedMixer(DMixer):
    """D-Mixer without its squeezed token enhancer."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        del self.proj

    def enhance(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H, W)`` unchanged."""
        return x


@MODELS.register_module()
class UnrefinedMixer(DMixer):
    """D-Mixer whose OSRA reduces keys and values without its local_conv."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        nothing: Any = nn.Identity()
        self.global_unit.local_conv = nothing

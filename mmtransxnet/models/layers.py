"""Layers that several parts of the network share."""

import torch
from mmcv.cnn import bricks, build_norm_layer
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from mmtransxnet.kernels.batch_norm import conv_norm
from mmtransxnet.kernels.channels_last import build_activation
from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.layer_scale import scale_and_shift


class ConvNorm(nn.Sequential):
    """A convolution, its norm and optionally an activation.

    The names are those of mmcv's ``ConvModule``: ``conv``, ``bn`` (or what
    mmcv calls another norm), ``activate``.

    Args:
        conv: The convolution.
        norm_cfg: Config of the norm.
        act_cfg: Config of the activation; None for no activation.
    """

    def __init__(
        self, conv: nn.Conv2d, norm_cfg: dict, act_cfg: dict | None = None
    ) -> None:
        super().__init__()
        self.conv = conv
        self.add_module(*build_norm_layer(norm_cfg, conv.out_channels))
        if act_cfg is not None:
            self.activate = build_activation(act_cfg)

    @computed_by(conv_norm)
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` as the convolution does."""
        for layer in self:
            x = layer(x)
        return x


class LayerScale(nn.Module):
    """``weight * x + bias`` per channel (CaiT, arXiv 2103.17239).

    The weight has the shape of that of a depthwise 1x1 convolution, as
    published.

    Args:
        channels: Number of channels C.
        init_value: Initial weight; the bias starts at 0.
    """

    def __init__(self, channels: int, init_value: float) -> None:
        super().__init__()
        self.init_value = init_value
        # Initialised by TransXNet.
        self.weight = nn.Parameter(torch.empty(channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels))

    @computed_by(scale_and_shift)
    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(B, C, H, W)``."""
        return x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class DropPath(bricks.DropPath):
    """mmcv's stochastic depth (arXiv 1603.09382), made scriptable.

    Args:
        drop_prob: Probability of dropping a sample of the branch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``(B, C, H, W)`` in training, scale the others."""
        if not torch.jit.is_scripting():
            return super().forward(x)
        return stochastic_depth(x, self.drop_prob, 'row', self.training)

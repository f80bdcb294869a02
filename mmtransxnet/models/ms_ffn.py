"""Multi-scale feed-forward network (paper section III).

The body of a method is its formula; the kernel named in ``computed_by``
computes the same faster or with less memory.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtransxnet.kernels.channels_last import build_activation
from mmtransxnet.kernels.depthwise import DepthwiseConv2d, multi_scale
from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.recompute import ffn_keeping_less


class MultiScaleDWConv(nn.Module):
    """Depthwise convolutions of several sizes, each on a part.

    ``x_i + DWConv_k(x_i)`` of the equal parts ``x_i``, concatenated.

    Args:
        channels: Number of channels; the first part includes the remainder.
        kernel_sizes: Size of the kernel of each part, odd.
    """

    kernel_sizes = (1, 3, 5, 7)

    def __init__(
        self, channels: int, kernel_sizes: Sequence[int] = kernel_sizes
    ) -> None:
        super().__init__()
        part = channels // len(kernel_sizes)
        first = channels - part * (len(kernel_sizes) - 1)
        self.splits = [first] + [part] * (len(kernel_sizes) - 1)
        self.proj = nn.ModuleList(
            DepthwiseConv2d(c, k, residual=True)
            for c, k in zip(self.splits, kernel_sizes, strict=True)
        )

    @computed_by(multi_scale)
    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, channels, H, W)``, keeping the shape."""
        parts, outs = x.split(self.splits, dim=1), []
        for i, conv in enumerate(self.proj):
            outs.append(conv(parts[i]))
        return torch.cat(outs, dim=1)


@MODELS.register_module()
class MSFFN(nn.Module):
    """Inverted bottleneck with multi-scale depthwise convolutions.

    Args:
        channels: Number of channels C.
        hidden_channels: Number of channels between the 1x1 convolutions.
        drop_rate: Dropout rate before and after the last 1x1 convolution.
        conv_norm_cfg: Config of the batch norms.
        act_cfg: Config of the activations.
        recompute: See :class:`~mmtransxnet.TransXNet`.
        kernel_sizes: Sizes of the depthwise convolutions, odd.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        drop_rate: float,
        conv_norm_cfg: dict,
        act_cfg: dict,
        recompute: str,
        kernel_sizes: Sequence[int] = MultiScaleDWConv.kernel_sizes,
    ) -> None:
        super().__init__()
        self.recompute = recompute  # read by the kernel
        # The norms come after the activations, as published.
        self.fc1 = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, 1, bias=False),
            build_activation(act_cfg),
            build_norm_layer(conv_norm_cfg, hidden_channels)[1],
        )
        self.dwconv = MultiScaleDWConv(hidden_channels, kernel_sizes)
        self.act = build_activation(act_cfg)
        self.norm = build_norm_layer(conv_norm_cfg, hidden_channels)[1]
        self.fc2 = nn.Sequential(
            nn.Conv2d(hidden_channels, channels, 1, bias=False),
            build_norm_layer(conv_norm_cfg, channels)[1],
        )
        self.drop = nn.Dropout(drop_rate)

    @computed_by(ffn_keeping_less)
    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, keeping the shape."""
        x = self.dwconv(self.fc1(x))
        x = self.norm(self.act(x))
        return self.drop(self.fc2(self.drop(x)))

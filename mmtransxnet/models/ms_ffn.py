"""Multi-scale feed-forward network (paper section III)."""

from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from mmtransxnet.kernels.depthwise import (
    DepthwiseConv2d,
    add_depthwise_convs,
)
from mmtransxnet.kernels.recompute import is_recomputed, recompute


class MultiScaleDWConv(nn.Module):
    """Depthwise convolutions of sizes 1, 3, 5, 7 on a quarter each.

    The input is added to them.

    Args:
        channels: Number of channels; the first quarter takes what four does
            not divide.
    """

    kernel_sizes = (1, 3, 5, 7)

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // len(self.kernel_sizes)
        first = channels - quarter * (len(self.kernel_sizes) - 1)
        self.splits = [first] + [quarter] * (len(self.kernel_sizes) - 1)
        self.proj = nn.ModuleList(
            DepthwiseConv2d(c, k, residual=True)
            for c, k in zip(self.splits, self.kernel_sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, channels, H, W)``, keeping the shape, and add it."""
        return add_depthwise_convs(x, self.proj, self.splits)


class MSFFN(nn.Module):
    """Inverted bottleneck with multi-scale depthwise convolutions.

    Args:
        channels: Number of channels C.
        hidden_channels: Number of channels between the 1x1 convolutions.
        drop_rate: Dropout rate after the depthwise and the last stage.
        norm_cfg: Config of the batch norms.
        act_cfg: Config of the activations.
        recompute: See :class:`~mmtransxnet.TransXNet`.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        drop_rate: float,
        norm_cfg: dict,
        act_cfg: dict,
        recompute: str,
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.recompute = recompute
        self.fc1 = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, 1, bias=False),
            build_activation_layer(act_cfg),
            build_norm_layer(norm_cfg, hidden_channels)[1],
        )
        self.dwconv = MultiScaleDWConv(hidden_channels)
        self.act = build_activation_layer(act_cfg)
        self.norm = build_norm_layer(norm_cfg, hidden_channels)[1]
        self.fc2 = nn.Sequential(
            nn.Conv2d(hidden_channels, channels, 1, bias=False),
            build_norm_layer(norm_cfg, channels)[1],
        )
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, keeping the shape."""
        hidden = x.size(0) * self.hidden_channels * x.size(2) * x.size(3)
        if is_recomputed(x, hidden, self.recompute, self, self.fc1, self.fc2):
            return self._forward_keeping_less(x)
        x = self.dwconv(self.fc1(x))
        x = self.norm(self.act(x))
        return self.drop(self.fc2(self.drop(x)))

    def _forward_keeping_less(self, x: Tensor) -> Tensor:
        """The same, with two maps of hidden channels kept instead of six."""
        x = self.fc1[0](x)
        x = recompute(self._mix, x, module=self, random=False)
        x = recompute(self._contract, x, module=self, random=self.drop.p > 0)
        return self.drop(self.fc2[1](x))

    def _mix(self, x: Tensor) -> Tensor:
        """Activation and norm of fc1, then the depthwise convolutions."""
        return self.dwconv(self.fc1[2](self.fc1[1](x)))

    def _contract(self, x: Tensor) -> Tensor:
        """Activation and norm, then the convolution of fc2."""
        return self.fc2[0](self.drop(self.norm(self.act(x))))

"""D-Mixer, the token mixer of TransXNet, and its two halves.

Paper: arXiv 2310.19380, section III. OSRA aggregates globally, IDConv
locally; both adapt to the input.
"""

import math

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer, build_norm_layer
from torch import Tensor, nn

from mmtransxnet.kernels.attention import attention
from mmtransxnet.kernels.batch_norm import statistics_for
from mmtransxnet.kernels.depthwise import DepthwiseConv2d, depthwise_conv2d
from mmtransxnet.kernels.recompute import is_recomputed, recompute


class IDConv(nn.Module):
    """Input-dependent depthwise convolution.

    Every sample is convolved with a kernel of its own: a softmax-weighted
    sum of G learned kernels, the weights predicted from the sample pooled
    to the size of the kernel. The bias is made the same way from the
    sample's mean.

    In training with one sample, that mean is one value per channel and has
    no batch statistics. ``proj``'s norm then uses its running statistics
    for the bias branch and does not update them, as in evaluation; on a map
    of one position (images of 32 x 32, last stage) for the kernel's, too.

    Args:
        channels: Number of channels c.
        kernel_size: Size K of the kernel, odd.
        num_groups: Number G of learned kernels.
        norm_cfg: Config of the batch norm.
        act_cfg: Config of the activation.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        num_groups: int,
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.num_groups = num_groups
        self.weight = nn.Parameter(
            torch.empty(num_groups, channels, kernel_size, kernel_size)
        )
        self.bias = nn.Parameter(torch.empty(num_groups, channels))
        hidden = channels // 4
        self.proj = nn.Sequential(
            ConvModule(
                channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg
            ),
            nn.Conv2d(hidden, channels * num_groups, 1),
        )

    def _mix(self, context: Tensor, learned: Tensor) -> Tensor:
        """Sum over the groups of ``learned``, weighted by the context.

        Args:
            context: Pooled samples ``(B, c, k, k)``.
            learned: Kernels ``(G, c, K, K)`` or biases ``(G, c)``.

        Returns:
            One mix a sample, ``(B, c, K, K)`` or ``(B, c)``.
        """
        num_values = context.size(0) * context.size(2) * context.size(3)
        with statistics_for(self.proj, num_values):
            scores = self.proj(context)
        scores = scores.reshape(scores.size(0), *learned.shape)
        return (scores.softmax(dim=1) * learned).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, c, H, W)``, keeping the shape."""
        b, c, h, w = x.shape
        kernel = self._mix(
            F.adaptive_avg_pool2d(x, self.kernel_size), self.weight
        )
        bias = self._mix(x.mean(dim=(2, 3), keepdim=True), self.bias)
        # One grouped convolution serves all samples: (sample, channel)
        # becomes the channel.
        kernel = kernel.reshape(b * c, 1, *kernel.shape[2:])
        if x.stride(1) == 1 and c > 1:
            # Channels-last stays so: a copy into the other layout and the
            # convolution in it take longer.
            merged = x.permute(2, 3, 0, 1).reshape(1, h, w, b * c)
            out = depthwise_conv2d(
                merged.permute(0, 3, 1, 2), kernel, bias.reshape(-1)
            )
            out = out.permute(0, 2, 3, 1).reshape(h, w, b, c)
            return out.permute(2, 3, 0, 1)
        out = depthwise_conv2d(
            x.reshape(1, b * c, h, w), kernel, bias.reshape(-1)
        )
        return out.reshape(b, c, h, w)


class ScaleModule(nn.Module):
    """A depthwise 1x1 convolution with a norm, as mmcv's ConvModule.

    Its own class because that would run PyTorch's slow convolution.

    Args:
        channels: Number of channels c.
        norm_cfg: Config of the batch norm.
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = DepthwiseConv2d(channels, 1, bias=False)
        # The name that ConvModule gives it.
        self.norm_name, norm = build_norm_layer(norm_cfg, channels)
        self.add_module(self.norm_name, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and normalise ``(B, c, H, W)``."""
        return self.get_submodule(self.norm_name)(self.conv(x))


class OSRA(nn.Module):
    """Overlapping spatial reduction attention.

    Keys and values are taken from a map reduced by an overlapping strided
    depthwise convolution, so every query attends to ``ceil(H/r) x
    ceil(W/r)`` tokens.

    Args:
        channels: Number of channels c.
        num_heads: Number of attention heads.
        sr_ratio: Reduction r, 1 for none.
        norm_cfg: Config of the batch norms.
        act_cfg: Config of the activation.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        sr_ratio: int,
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Conv2d(channels, 2 * channels, 1)
        self.sr: nn.Module = nn.Identity()
        if sr_ratio > 1:
            kernel_size = sr_ratio + 3
            self.sr = nn.Sequential(
                ConvModule(
                    channels,
                    channels,
                    kernel_size,
                    stride=sr_ratio,
                    padding=kernel_size // 2,
                    groups=channels,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                ),
                ScaleModule(channels, norm_cfg),
            )
        # Lets neighbouring keys exchange information.
        self.local_conv = DepthwiseConv2d(channels, 3, residual=True)

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, heads * D, H, W)`` to ``(B, heads, H * W, D)``."""
        x = x.reshape(x.size(0), self.num_heads, -1, x.size(2) * x.size(3))
        return x.transpose(-1, -2)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Attend globally.

        Args:
            x: Feature map ``(B, c, H, W)``.
            table: Position bias ``(1, heads, Nq0, Nk)``, see
                :func:`resize_as_far_as_small`.

        Returns:
            Feature map ``(B, c, H, W)``.
        """
        keys = math.ceil(x.size(2) / self.sr_ratio) * math.ceil(
            x.size(3) / self.sr_ratio
        )
        with statistics_for(self.sr, x.size(0) * keys):
            reduced = self.sr(x)
        k, v = self.kv(self.local_conv(reduced)).chunk(2, dim=1)
        out = attention(
            self._heads(self.q(x)), self._heads(k), self._heads(v), table
        )
        return out.transpose(-1, -2).reshape(x.shape)


class DMixer(nn.Module):
    """Dual dynamic token mixer.

    One half of the channels goes through IDConv, the other through OSRA;
    the squeezed token enhancer (``proj``, with a residual) then exchanges
    information between them.

    Args:
        channels: Number of channels C, even.
        kernel_size: Kernel size of IDConv.
        num_groups: Number of learned kernels of IDConv.
        num_heads: Number of attention heads of OSRA.
        sr_ratio: Spatial reduction of OSRA.
        norm_cfg: Config of the batch norms.
        act_cfg: Config of the activations.
        recompute: See :class:`~mmtransxnet.TransXNet`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        num_groups: int,
        num_heads: int,
        sr_ratio: int,
        norm_cfg: dict,
        act_cfg: dict,
        recompute: str,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        half = channels // 2
        self.local_unit = IDConv(
            half, kernel_size, num_groups, norm_cfg, act_cfg
        )
        self.global_unit = OSRA(half, num_heads, sr_ratio, norm_cfg, act_cfg)
        squeezed = max(16, channels // 8)
        self.proj = nn.Sequential(
            DepthwiseConv2d(channels, 3),
            build_activation_layer(act_cfg),
            build_norm_layer(norm_cfg, channels)[1],
            nn.Conv2d(channels, squeezed, 1),
            build_activation_layer(act_cfg),
            build_norm_layer(norm_cfg, squeezed)[1],
            nn.Conv2d(squeezed, channels, 1),
            build_norm_layer(norm_cfg, channels)[1],
        )

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Mix tokens of ``(B, C, H, W)``; see :meth:`OSRA.forward`."""
        local_half, global_half = x.chunk(2, dim=1)
        x = torch.cat(
            (
                self.local_unit(local_half),
                self.global_unit(global_half, table),
            ),
            dim=1,
        )
        if is_recomputed(x, x.numel(), self.recompute, self.proj, self.proj):
            return x + self._exchange_keeping_less(x)
        return x + self.proj(x)

    def _exchange_keeping_less(self, x: Tensor) -> Tensor:
        """Run ``proj`` with one map of C channels kept instead of three."""
        x = self.proj[0](x)
        x = recompute(self._squeeze, x, module=self.proj, random=False)
        return self.proj[4:](x)

    def _squeeze(self, x: Tensor) -> Tensor:
        """Activation, norm and squeezing convolution of ``proj``."""
        return self.proj[1:4](x)

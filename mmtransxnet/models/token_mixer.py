"""D-Mixer, the token mixer of TransXNet, and its two halves.

Paper: arXiv 2310.19380, section III. OSRA aggregates globally, IDConv
locally; both adapt to the input.

Parameter names are the published ones, including four different ``proj``. The
body of a method is its formula; where it is decorated with ``computed_by``,
the kernel named there computes the same faster or with less memory.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtransxnet.kernels.attention import attention
from mmtransxnet.kernels.channels_last import build_activation
from mmtransxnet.kernels.depthwise import DepthwiseConv2d
from mmtransxnet.kernels.dynamic_depthwise import dynamic_depthwise_conv2d
from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.recompute import enhance_keeping_less
from mmtransxnet.models.layers import ConvNorm


class IDConv(nn.Module):
    """Input-dependent depthwise convolution.

    Every sample is convolved with a kernel of its own: the sum of G learned
    kernels, weighted for each channel and kernel position by a softmax over
    the kernels. ``proj`` predicts these weights from the sample pooled to the
    size of the kernel, and the weights of the biases from the sample's mean:
    it runs twice, and its norm counts both.

    Args:
        channels: Number of channels c.
        kernel_size: Size K of the kernel, odd.
        num_groups: Number G of learned kernels.
        conv_norm_cfg: Config of the batch norm.
        act_cfg: Config of the activation.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        num_groups: int,
        conv_norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.num_groups = num_groups
        # Initialised by TransXNet.
        self.weight = nn.Parameter(
            torch.empty(num_groups, channels, kernel_size, kernel_size)
        )
        self.bias = nn.Parameter(torch.empty(num_groups, channels))
        hidden = channels // 4
        # Predicts the scores of the kernels.
        self.proj = nn.Sequential(
            ConvNorm(
                nn.Conv2d(channels, hidden, 1, bias=False),
                conv_norm_cfg,
                act_cfg,
            ),
            nn.Conv2d(hidden, channels * num_groups, 1),
        )

    def _mix(self, context: Tensor, learned: Tensor) -> Tensor:
        """Sum over the groups of ``learned``, weighted by the context.

        Args:
            context: Pooled samples ``(B, c, k, k)``, k = K or 1.
            learned: Kernels ``(G, c, K, K)`` or biases ``(G, c, 1, 1)``.

        Returns:
            The weighted sum of each sample, ``(B, c, K, K)`` or
            ``(B, c, 1, 1)``.
        """
        scores = self.proj(context)
        scores = scores.unflatten(1, (self.num_groups, -1))  # (B, G, c, k, k)
        return (scores.softmax(dim=1) * learned).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, c, H, W)``, keeping the shape."""
        pooled = F.adaptive_avg_pool2d(x, self.kernel_size)
        kernel = self._mix(pooled, self.weight)
        mean = x.mean(dim=(2, 3), keepdim=True)
        bias = self._mix(mean, self.bias[..., None, None])
        # Sample b is convolved with kernel[b], stride 1, zero padding K // 2.
        return dynamic_depthwise_conv2d(x, kernel, bias.flatten(1))


class OSRA(nn.Module):
    """Overlapping spatial reduction attention.

    Keys and values are taken from a map reduced by an overlapping strided
    depthwise convolution, so every one of the ``Nq = H W`` queries attends
    to ``Nk = ceil(H/r) ceil(W/r)`` tokens.

    Args:
        channels: Number of channels c.
        num_heads: Number of attention heads.
        sr_ratio: Reduction r; 1 for no reduction.
        conv_norm_cfg: Config of the batch norms.
        act_cfg: Config of the activation.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        sr_ratio: int,
        conv_norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Conv2d(channels, 2 * channels, 1)
        self.sr: nn.Module = nn.Identity()
        if sr_ratio > 1:
            kernel_size = sr_ratio + 3
            overlapping = nn.Conv2d(
                channels,
                channels,
                kernel_size,
                stride=sr_ratio,
                padding=kernel_size // 2,
                groups=channels,
                bias=False,
            )
            scaling = DepthwiseConv2d(channels, 1, bias=False)
            self.sr = nn.Sequential(
                ConvNorm(overlapping, conv_norm_cfg, act_cfg),
                ConvNorm(scaling, conv_norm_cfg),
            )
        # Exchanges information between neighbouring reduced tokens.
        self.local_conv = DepthwiseConv2d(channels, 3, residual=True)

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, heads * D, H, W)`` to ``(B, heads, H * W, D)``."""
        return x.flatten(2).unflatten(1, (self.num_heads, -1)).mT

    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Attend globally.

        Args:
            x: Feature map ``(B, c, H, W)``.
            pos_bias: Position bias ``(1, heads, Nq, Nk)``. Where that would
                be large, ``(1, heads, Nq0, Nk)``: the attention resizes the
                rows, block by block.

        Returns:
            Feature map ``(B, c, H, W)``.
        """
        reduced = self.local_conv(self.sr(x))  # y + DWConv3x3(y), y = sr(x)
        q, (k, v) = self.q(x), self.kv(reduced).chunk(2, dim=1)
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        out = attention(q, k, v, pos_bias)  # softmax(q k^T / sqrt(D) + b) v
        return out.mT.reshape(x.shape)


@MODELS.register_module()
class DMixer(nn.Module):
    """Dual dynamic token mixer.

    The first half of the channels goes through IDConv, the second through
    OSRA; the squeezed token enhancer (``proj``, with a residual) then
    exchanges information between them.

    Args:
        channels: Number of channels C, even.
        kernel_size: Kernel size of IDConv.
        num_groups: Number of learned kernels of IDConv.
        num_heads: Number of attention heads of OSRA.
        sr_ratio: Spatial reduction of OSRA.
        conv_norm_cfg: Config of the batch norms.
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
        conv_norm_cfg: dict,
        act_cfg: dict,
        recompute: str,
    ) -> None:
        super().__init__()
        self.recompute = recompute  # read by the kernel
        half = channels // 2
        self.local_unit = IDConv(
            half, kernel_size, num_groups, conv_norm_cfg, act_cfg
        )
        self.global_unit = OSRA(
            half, num_heads, sr_ratio, conv_norm_cfg, act_cfg
        )
        squeezed = max(16, channels // 8)
        # The norms come after the activations, as published.
        self.proj = nn.Sequential(
            DepthwiseConv2d(channels, 3),
            build_activation(act_cfg),
            build_norm_layer(conv_norm_cfg, channels)[1],
            nn.Conv2d(channels, squeezed, 1),
            build_activation(act_cfg),
            build_norm_layer(conv_norm_cfg, squeezed)[1],
            nn.Conv2d(squeezed, channels, 1),
            build_norm_layer(conv_norm_cfg, channels)[1],
        )

    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Mix tokens of ``(B, C, H, W)``; see :meth:`OSRA.forward`."""
        x1, x2 = x.chunk(2, dim=1)
        x1, x2 = self.local_unit(x1), self.global_unit(x2, pos_bias)
        return self.enhance(torch.cat((x1, x2), dim=1))

    @computed_by(enhance_keeping_less)
    def enhance(self, x: Tensor) -> Tensor:
        """Squeezed token enhancer: mix all channels of ``(B, C, H, W)``."""
        return x + self.proj(x)

"""Building blocks of the stages of TransXNet."""

from collections.abc import Iterable
from typing import Any

import torch.fx
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtransxnet.kernels.attention import position_bias
from mmtransxnet.kernels.batch_norm import accepts_single_values
from mmtransxnet.kernels.channels_last import in_fast_order
from mmtransxnet.kernels.depthwise import DepthwiseConv2d
from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.recompute import (
    checkpointed,
    scaled_ffn_keeping_less,
)
from mmtransxnet.models import ms_ffn, token_mixer  # noqa: F401, registered
from mmtransxnet.models.layers import ConvNorm, DropPath, LayerScale

# A leaf for torch.fx: its control flow depends on sizes.
torch.fx.wrap('position_bias')


class PatchEmbed(nn.Module):
    """A strided convolution with a norm: the stem and the downsampling.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, odd.
        stride: Reduction of height and width; sizes are rounded up.
        conv_norm_cfg: Config of the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        conv_norm_cfg: dict,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=False,
        )
        self.proj = ConvNorm(conv, conv_norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in, H, W)`` to ``(B, out, ~H / stride, ~W / stride)``."""
        return self.proj(in_fast_order(x))


class Block(nn.Module):
    """Position embedding, token mixer and FFN, each with a residual.

    Args:
        channels: Number of channels C.
        kernel_size: Kernel size of IDConv.
        num_groups: Number of learned kernels of IDConv.
        num_heads: Number of heads of OSRA.
        sr_ratio: Spatial reduction of OSRA.
        mlp_ratio: Hidden channels of the FFN over C.
        drop_rate: Dropout rate inside the FFN.
        drop_path_rate: Probability of skipping a residual branch.
        layer_scale_init_value: Initial LayerScale weight.
        norm_cfg: Config of the norms before the branches.
        conv_norm_cfg: Config of the norms of the convolutions.
        act_cfg: Config of the activations.
        with_cp: Whether to recompute the block in the backward pass.
        recompute: See :class:`TransXNet`.
        token_mixer_cfg: Config of the token mixer; see :class:`TransXNet`.
        ffn_cfg: Config of the FFN, likewise.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        num_groups: int,
        num_heads: int,
        sr_ratio: int,
        mlp_ratio: int,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
        norm_cfg: dict,
        conv_norm_cfg: dict,
        act_cfg: dict,
        with_cp: bool,
        recompute: str,
        token_mixer_cfg: dict,
        ffn_cfg: dict,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp  # read by the decorator of forward
        self.pos_embed = DepthwiseConv2d(channels, 7, residual=True)
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.token_mixer = _build(
            token_mixer_cfg,
            channels=channels,
            kernel_size=kernel_size,
            num_groups=num_groups,
            num_heads=num_heads,
            sr_ratio=sr_ratio,
            conv_norm_cfg=conv_norm_cfg,
            act_cfg=act_cfg,
            recompute=recompute,
        )
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.mlp = _build(
            ffn_cfg,
            channels=channels,
            hidden_channels=mlp_ratio * channels,
            drop_rate=drop_rate,
            conv_norm_cfg=conv_norm_cfg,
            act_cfg=act_cfg,
            recompute=recompute,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = LayerScale(channels, layer_scale_init_value)
        self.layer_scale_2 = LayerScale(channels, layer_scale_init_value)

    @checkpointed
    @accepts_single_values
    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Transform a feature map.

        Args:
            x: Feature map ``(B, C, H, W)``.
            pos_bias: Position bias for the token mixer, see
                :meth:`~mmtransxnet.models.token_mixer.OSRA.forward`.

        Returns:
            Feature map ``(B, C, H, W)``.
        """
        x = self.pos_embed(x)  # x + DWConv7x7(x)
        # No names for what is added: it would stay in memory.
        x = x + self.drop_path(
            self.layer_scale_1(self.token_mixer(self.norm1(x), pos_bias))
        )
        return x + self.drop_path(self.scaled_ffn(x))

    @computed_by(scaled_ffn_keeping_less)
    def scaled_ffn(self, x: Tensor) -> Tensor:
        """FFN of ``(B, C, H, W)`` with its norm and LayerScale."""
        return self.layer_scale_2(self.mlp(self.norm2(x)))


def _build(config: dict, **arguments: Any) -> nn.Module:
    """Build a registered module; the config's own arguments win."""
    return MODELS.build({**arguments, **config})


class Stage(nn.ModuleList):
    """The blocks of a stage, which share a position table.

    Args:
        blocks: The blocks.
        sr_ratio: Spatial reduction r of their OSRA.
    """

    def __init__(self, blocks: Iterable[Block], sr_ratio: int) -> None:
        super().__init__(blocks)
        self.sr_ratio = sr_ratio

    def __getitem__(self, index: Any) -> Any:
        """Return a block, or a plain list of blocks."""
        if isinstance(index, slice):
            return nn.ModuleList(list(self)[index])
        return super().__getitem__(index)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``.

        Args:
            x: Feature map ``(B, C, H, W)``.
            table: Learned attention bias ``(1, heads, Nq0, Nk0)`` of each
                query and key at the design size; resized to the size of ``x``.
        """
        pos_bias = position_bias(table, x, self.sr_ratio)
        for block in self:
            x = block(x, pos_bias)
        return x

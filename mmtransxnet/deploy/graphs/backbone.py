"""The backbone's deploy form: for any size and batch, in engines' operators.

It is derived from the folded network. What differs from it: the position
tables are resized and the maps pooled in the graph by products with matrices
that the graph computes; IDConv's predictor runs once; the kernels of the
samples are a custom operator where the batch is dynamic; norms, attention and
the order of dimensions have the form that OpenVINO computes fastest.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransxnet.deploy.graphs.layers import (
    depthwise,
    norm_and_ffn,
    norm_of,
    pointwise,
)
from mmtransxnet.deploy.graphs.operators import conv_per_sample, grouped_conv
from mmtransxnet.deploy.graphs.resampling import (
    bin_averages,
    resize_table,
    with_border,
)
from mmtransxnet.models.inference_form import (
    FoldedBlock,
    FoldedMixer,
    FoldedOSRA,
    KeptMixer,
    fold,
)
from mmtransxnet.models.token_mixer import IDConv
from mmtransxnet.models.transxnet import TransXNet, output_norm_name
from mmtransxnet.utils.errors import UserError


class DeployIDConv(nn.Module):
    """IDConv with one product for all of its averages.

    The kernel and the bias have the same predictor. So a sample is averaged
    over ``K x K`` bins and, as one more row and column of bins, over all of
    it; where both meet is its mean, from which the bias is predicted.

    Args:
        idconv: The folded IDConv.
        batch: Number of samples; None for any.
    """

    def __init__(self, idconv: IDConv, batch: int | None) -> None:
        super().__init__()
        self.kernel_size = idconv.kernel_size
        self.num_groups = idconv.num_groups
        self.proj = idconv.proj
        learned = F.pad(idconv.weight, (0, 1, 0, 1))
        learned[..., -1, -1] = idconv.bias
        self.learned = nn.Parameter(learned)
        self.convolve = conv_per_sample if batch is None else grouped_conv

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Convolve ``(B, c, H, W)``, keeping the shape.

        Args:
            x: Feature map.
            rows: Averages over rows ``(K + 1, H)``, see :func:`all_averages`.
            columns: Averages over columns ``(K + 1, W)``.
        """
        # In one order of memory for both; OpenVINO would copy it twice.
        x = x.flatten(2).unflatten(2, x.shape[2:])
        pooled = rows @ (x @ columns.mT)
        scores = self.proj(pooled).unflatten(1, (self.num_groups, -1))
        mixed = (scores.softmax(dim=1) * self.learned).sum(dim=1)
        size = self.kernel_size
        kernel, bias = mixed[..., :size, :size], mixed[..., size, size]
        return self.convolve(x, kernel, bias)


def all_averages(length: int, bins: int, like: Tensor) -> Tensor:
    """Averages over bins and over all positions, ``(bins + 1, length)``."""
    return torch.cat([bin_averages(length, n, like) for n in (bins, 1)], dim=0)


class DeployOSRA(nn.Module):
    """OSRA as products and a softmax, which engines fuse.

    Args:
        osra: The folded OSRA.
    """

    def __init__(self, osra: FoldedOSRA) -> None:
        super().__init__()
        self.num_heads = osra.num_heads
        self.sr = osra.sr
        self.local_conv = osra.local_conv
        q: Any = osra.q
        kv: Any = osra.kv
        scale = (q.out_channels // osra.num_heads) ** -0.5
        self.q = pointwise(q.weight * scale, q.bias * scale)
        keys, values = kv.weight.chunk(2)
        key_bias, value_bias = kv.bias.chunk(2)
        self.k = pointwise(keys, key_bias)
        self.v = pointwise(values, value_bias)

    def _tokens(self, x: Tensor) -> Tensor:
        """``(B, heads * D, H, W)`` to ``(B, H * W, heads, D)``."""
        x = x.permute(0, 2, 3, 1).flatten(1, 2)
        return x.unflatten(2, (self.num_heads, -1))

    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Attend globally.

        Args:
            x: Feature map ``(B, c, H, W)``.
            pos_bias: Position bias ``(heads, Nq, Nk)``.

        Returns:
            Feature map ``(B, c, H, W)``.
        """
        reduced = self.local_conv(self.sr(x))
        q = self._tokens(self.q(x)).permute(0, 2, 1, 3)
        k = self._tokens(self.k(reduced)).permute(0, 2, 3, 1)
        v = self._tokens(self.v(reduced)).permute(0, 2, 1, 3)
        out = (q @ k + pos_bias).softmax(dim=-1) @ v
        out = out.permute(0, 2, 1, 3).flatten(2)
        return out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class DeployMixer(nn.Module):
    """D-Mixer with its residuals.

    Args:
        mixer: The folded D-Mixer.
        batch: Number of samples; None for any.
    """

    def __init__(self, mixer: FoldedMixer, batch: int | None) -> None:
        super().__init__()
        self.local_unit = DeployIDConv(mixer.local_unit, batch)
        self.global_unit = DeployOSRA(mixer.global_unit)
        self.proj = mixer.proj
        self.expand = mixer.expand
        self.scale = depthwise(mixer.scale)

    def forward(self, shortcut: Tensor, x: Tensor, stage: Any) -> Tensor:
        """Mix tokens of ``(B, C, H, W)`` and add them to the shortcut."""
        rows, columns, pos_bias = stage
        local_half, global_half = x.chunk(2, dim=1)
        x = torch.cat(
            (
                self.local_unit(local_half, rows, columns),
                self.global_unit(global_half, pos_bias),
            ),
            dim=1,
        )
        return shortcut + self.scale(x) + self.expand(self.proj(x))


class DeployBlock(nn.Module):
    """A block.

    Args:
        block: The folded block.
        batch: Number of samples; None for any.
    """

    def __init__(self, block: FoldedBlock, batch: int | None) -> None:
        super().__init__()
        self.pos_embed = block.pos_embed
        self.norm1 = norm_of(block.norm1)
        mixer: Any = block.token_mixer
        self.token_mixer = DeployMixer(mixer, batch)
        self.norm2, self.mlp = norm_and_ffn(block.norm2, block.mlp)

    def forward(self, x: Tensor, stage: Any) -> Tensor:
        """Transform ``(B, C, H, W)``."""
        x = self.pos_embed(x)
        x = self.token_mixer(x, self.norm1(x), stage)
        return self.mlp(x, self.norm2(x))


class DeployStage(nn.Module):
    """The blocks of a stage, and what they share.

    Args:
        stage: The stage of the folded network.
        table: Its position table ``(1, heads, Nq0, Nk0)``.
        batch: Number of samples; None for any.
    """

    def __init__(self, stage: Any, table: Tensor, batch: int | None) -> None:
        super().__init__()
        self.sr_ratio = stage.sr_ratio
        self.table = nn.Parameter(with_border(table[0]))
        self.blocks = nn.ModuleList(DeployBlock(b, batch) for b in stage)
        self.kernel_size: int = stage[0].token_mixer.local_unit.kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``."""
        height, width = x.size(2), x.size(3)
        r = self.sr_ratio
        # Of convolutions with stride r; the same expression as theirs.
        num_k = ((height - 1) // r + 1) * ((width - 1) // r + 1)
        shared = (
            all_averages(height, self.kernel_size, x),
            all_averages(width, self.kernel_size, x),
            resize_table(self.table, height, width, num_k),
        )
        for block in self.blocks:
            x = block(x, shared)
        return x


class DeployBackbone(nn.Module):
    """The whole backbone.

    Args:
        backbone: The trained backbone, in evaluation mode; folded or not.
        batch: Number of samples; None for any.

    Raises:
        UserError: The model's backbone, or its token mixer, is another one.
    """

    def __init__(self, backbone: nn.Module, batch: int | None) -> None:
        super().__init__()
        if not isinstance(backbone, TransXNet):
            raise UserError(
                f'the backbone is a {type(backbone).__name__}; only models '
                'with a TransXNet can be exported'
            )
        folded: Any = fold(backbone).float()
        for part in folded.modules():
            if isinstance(part, KeptMixer):
                raise UserError(
                    f'the token mixer is a {type(part.mixer).__name__}; only '
                    'models with the type DMixer can be exported'
                )
        for conv in folded.modules():
            if isinstance(conv, nn.Conv2d):
                conv.to(memory_format=torch.contiguous_format)
        self.out_indices = folded.out_indices
        last = self.out_indices[-1]
        self.stems = nn.ModuleList(
            [folded.patch_embed, *folded.network[1::2]][: last + 1]
        )
        self.stages = nn.ModuleList(
            DeployStage(stage, table, batch)
            for stage, table in zip(
                folded.network[: 2 * last + 1 : 2],
                folded.relative_pos_enc,
                strict=False,
            )
        )
        self.norms = nn.ModuleDict(
            {
                str(i): norm_of(folded.get_submodule(output_norm_name(i)))
                for i in self.out_indices
            }
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of normalised images ``(B, 3, H, W)``."""
        outputs = []
        pairs = zip(self.stems, self.stages, strict=True)
        for i, (stem, stage) in enumerate(pairs):
            x = stage(stem(x))
            if i in self.out_indices:
                outputs.append(self.norms[str(i)](x))
        return tuple(outputs)

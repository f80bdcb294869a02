"""The published formula, written plainly: the reference for TransXNet.

Nothing here is shared with the other modules or mmcv, and nothing is
optimised: the position table is resized in every block, attention is
materialised, LayerScale is a depthwise convolution, the scales of the MS-FFN
are separate convolutions. Parameter names are the published ones, so weights
are exchanged by ``load_state_dict``.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# size: depths, channels, IDConv groups, heads, FFN ratios
SIZES = {
    't': ((3, 3, 9, 3), (48, 96, 224, 448), (2, 2, 2, 2), (1, 2, 4, 8), 4),
    's': ((4, 4, 12, 4), (64, 128, 320, 512), (2, 2, 3, 4), (1, 2, 5, 8), 6),
    'b': ((4, 4, 21, 4), (76, 152, 336, 672), (2, 2, 4, 4), (2, 4, 8, 16), 8),
}


def published(size: str) -> dict:
    """The architecture of ``size`` with one entry per stage."""
    depths, dims, groups, heads, ratio = SIZES[size]
    return dict(
        layers=depths,
        embed_dims=dims,
        kernel_size=(7, 7, 7, 7),
        num_groups=groups,
        sr_ratio=(8, 4, 2, 1),
        num_heads=heads,
        # All sizes end with a ratio of four in the two deep stages.
        mlp_ratios=(ratio, ratio, 4, 4),
    )


def conv_bn(cin, cout, k, stride=1, padding=0, groups=1, act=False):
    """Convolution without bias, BN and optionally GELU."""
    conv = nn.Conv2d(cin, cout, k, stride, padding, groups=groups, bias=False)
    parts = OrderedDict(conv=conv, bn=nn.BatchNorm2d(cout))
    if act:
        parts['activate'] = nn.GELU()
    return nn.Sequential(parts)


def depthwise(channels: int, k: int) -> nn.Conv2d:
    """A k x k depthwise convolution that keeps height and width."""
    return nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels)


class Projected(nn.Module):
    """The stem or a downsampling layer."""

    def __init__(self, cin, cout, k, stride, padding):
        super().__init__()
        self.proj = conv_bn(cin, cout, k, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce ``(B, cin, H, W)``."""
        return self.proj(x)


class LayerScale(nn.Module):
    """A scale and a shift per channel, as a depthwise convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1, 1), 1e-5))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(B, C, H, W)``."""
        return F.conv2d(x, self.weight, self.bias, groups=x.shape[1])


class IDConv(nn.Module):
    """Input-dependent depthwise convolution: kernels mixed by the input."""

    def __init__(self, channels: int, kernel: int, groups: int):
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight = nn.Parameter(
            0.02 * torch.randn(groups, channels, kernel, kernel)
        )
        self.bias = nn.Parameter(0.02 * torch.randn(groups, channels))
        self.proj = nn.Sequential(
            conv_bn(channels, channels // 4, 1, act=True),
            nn.Conv2d(channels // 4, channels * groups, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)`` locally."""
        b, c, h, w = x.shape
        k, g = self.kernel, self.groups
        # The kernel branch comes first: the shared BN's running statistics
        # depend on the order of the two.
        share = self.proj(F.adaptive_avg_pool2d(x, k))
        share = share.reshape(b, g, c, k, k).softmax(dim=1)
        weight = (share * self.weight).sum(dim=1)
        share = self.proj(x.mean(dim=(2, 3), keepdim=True))
        share = share.reshape(b, g, c).softmax(dim=1)
        bias = (share * self.bias).sum(dim=1)
        out = F.conv2d(
            x.reshape(1, b * c, h, w),
            weight.reshape(b * c, 1, k, k),
            bias.reshape(b * c),
            padding=k // 2,
            groups=b * c,
        )
        return out.reshape(b, c, h, w)


class OSRA(nn.Module):
    """Overlapping spatial-reduction attention with a position table."""

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Conv2d(channels, 2 * channels, 1)
        self.sr: nn.Module = nn.Identity()
        if reduction > 1:
            k = reduction + 3
            self.sr = nn.Sequential(
                conv_bn(
                    channels,
                    channels,
                    k,
                    stride=reduction,
                    padding=k // 2,
                    groups=channels,
                    act=True,
                ),
                conv_bn(channels, channels, 1, groups=channels),
            )
        self.local_conv = depthwise(channels, 3)

    def split(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, heads, H * W, head_dim)``."""
        b, c = x.shape[:2]
        x = x.reshape(b, self.heads, c // self.heads, -1)
        return x.transpose(-1, -2)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)`` globally; table ``(1, heads, Q, K)``."""
        y = self.sr(x)
        y = self.local_conv(y) + y
        key, value = self.kv(y).chunk(2, dim=1)
        q, key, value = (
            self.split(self.q(x)),
            self.split(key),
            self.split(value),
        )
        attention = (q @ key.transpose(-1, -2)) * q.shape[-1] ** -0.5
        if attention.shape[-2:] != table.shape[-2:]:
            # The flattened matrix is resized like an image, as published.
            table = F.interpolate(
                table,
                size=attention.shape[-2:],
                mode='bicubic',
                align_corners=False,
            )
        out = (attention + table).softmax(dim=-1) @ value
        return out.transpose(-1, -2).reshape(x.shape)


class DMixer(nn.Module):
    """IDConv on one half of the channels, OSRA on the other."""

    def __init__(self, channels, kernel, groups, heads, reduction):
        super().__init__()
        half, squeezed = channels // 2, max(16, channels // 8)
        self.local_unit = IDConv(half, kernel, groups)
        self.global_unit = OSRA(half, heads, reduction)
        self.proj = nn.Sequential(
            depthwise(channels, 3),
            nn.GELU(),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, squeezed, 1),
            nn.GELU(),
            nn.BatchNorm2d(squeezed),
            nn.Conv2d(squeezed, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)``; table as in OSRA."""
        local, distant = x.chunk(2, dim=1)
        x = torch.cat(
            [self.local_unit(local), self.global_unit(distant, table)], dim=1
        )
        return x + self.proj(x)


class MultiScale(nn.Module):
    """Depthwise convolutions of four kernel sizes, a quarter each."""

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        self.widths = [channels - 3 * quarter] + 3 * [quarter]
        self.proj = nn.ModuleList(
            depthwise(c, k)
            for c, k in zip(self.widths, (1, 3, 5, 7), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``(B, C, H, W)``."""
        parts = torch.split(x, self.widths, dim=1)
        pairs = zip(self.proj, parts, strict=True)
        return torch.cat([conv(part) for conv, part in pairs], dim=1)


class MSFFN(nn.Module):
    """Multi-scale feed-forward network."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.GELU(),
            nn.BatchNorm2d(hidden),
        )
        self.dwconv = MultiScale(hidden)
        self.norm = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Sequential(
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``."""
        x = self.fc1(x)
        x = self.dwconv(x) + x
        return self.fc2(self.norm(F.gelu(x)))


class Block(nn.Module):
    """Position embedding, D-Mixer and MS-FFN, each with its residual."""

    def __init__(self, channels, kernel, groups, heads, reduction, ratio):
        super().__init__()
        self.pos_embed = depthwise(channels, 7)
        self.norm1 = nn.GroupNorm(1, channels)
        self.token_mixer = DMixer(channels, kernel, groups, heads, reduction)
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = MSFFN(channels, int(ratio * channels))
        self.layer_scale_1 = LayerScale(channels)
        self.layer_scale_2 = LayerScale(channels)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``; table as in OSRA."""
        x = x + self.pos_embed(x)
        x = x + self.layer_scale_1(self.token_mixer(self.norm1(x), table))
        return x + self.layer_scale_2(self.mlp(self.norm2(x)))


class ReferenceTransXNet(nn.Module):
    """Four normalised outputs, or logits if ``num_classes`` is set."""

    def __init__(self, arch, image_size=224, num_classes=None):
        super().__init__()
        if isinstance(arch, str):
            arch = published(arch)
        dims = arch['embed_dims']
        self.patch_embed = Projected(3, dims[0], 7, 4, 3)
        self.relative_pos_enc = nn.ParameterList()
        self.network = nn.ModuleList()
        side = -(-image_size // 4)
        for i, depth in enumerate(arch['layers']):
            if i:
                self.network.append(Projected(dims[i - 1], dims[i], 3, 2, 1))
                side = -(-side // 2)
            heads, reduction = arch['num_heads'][i], arch['sr_ratio'][i]
            keys = (-(-side // reduction)) ** 2
            self.relative_pos_enc.append(
                nn.Parameter(torch.zeros(1, heads, side**2, keys))
            )
            self.network.append(
                nn.ModuleList(
                    Block(
                        dims[i],
                        arch['kernel_size'][i],
                        arch['num_groups'][i],
                        heads,
                        reduction,
                        arch['mlp_ratios'][i],
                    )
                    for _ in range(depth)
                )
            )
        self.classifier = None
        if num_classes is None:
            for i in range(4):
                self.add_module(f'norm{2 * i}', nn.GroupNorm(1, dims[i]))
        else:
            self.classifier = nn.Sequential(
                nn.GroupNorm(1, dims[3]),
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(dims[3], num_classes, 1),
            )

    def forward(self, x: Tensor):
        """Features of ``(B, 3, H, W)``, or logits ``(B, num_classes)``."""
        x = self.patch_embed(x)
        outs = []
        for i in range(4):
            if i:
                x = self.network[2 * i - 1](x)
            stage: Any = self.network[2 * i]
            for block in stage:
                x = block(x, self.relative_pos_enc[i])
            if self.classifier is None:
                outs.append(getattr(self, f'norm{2 * i}')(x))
        if self.classifier is None:
            return tuple(outs)
        return self.classifier(x).flatten(1)


class LenientBatchNorm2d(nn.BatchNorm2d):
    """BN that falls back to its running statistics for a single value."""

    # Set where all values are copies of a single value.
    copies = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        if self.training and (self.copies or x.numel() == x.shape[1]):
            return F.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                eps=self.eps,
            )
        return super().forward(x)


class LenientIDConv(IDConv):
    """IDConv that pools a map of one position to copies of one value."""

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`IDConv`."""
        norm: Any = self.proj[0].bn
        norm.copies = x.numel() == x.shape[1]
        return super().forward(x)


def lenient(module: nn.Module) -> nn.Module:
    """Apply the only documented deviation: single values in training.

    The published code crashes there (issue 19 of its tracker).
    """
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.__class__ = LenientBatchNorm2d
        elif isinstance(child, IDConv):
            child.__class__ = LenientIDConv
    return module

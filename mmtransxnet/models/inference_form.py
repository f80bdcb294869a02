"""The inference form of the network: fewer operations, the same outputs.

What a trained network does in several linear steps folds into one:

- a batch norm into the convolution before it, or into the 1x1 convolution
  after it;
- LayerScale into the 1x1 convolution before it;
- ``conv(x) + x`` of a depthwise convolution into the centre of its kernel.

Not exact, hence not folded: a batch norm in front of a zero-padded depthwise
convolution (that of ``fc1``: its shift does not reach the padding), and
IDConv's kernel, which depends on the input. Token mixers and FFNs other than
the paper's are kept as they are.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmtransxnet.kernels.depthwise import DepthwiseConv2d
from mmtransxnet.kernels.formula import computed_by
from mmtransxnet.kernels.fused_convolution import conv_add, conv_gelu
from mmtransxnet.models.block import Block
from mmtransxnet.models.layers import ConvNorm, LayerScale
from mmtransxnet.models.ms_ffn import MSFFN
from mmtransxnet.models.token_mixer import OSRA, DMixer
from mmtransxnet.models.transxnet import TransXNet

_Model = TypeVar('_Model', bound=nn.Module)


@torch.no_grad()
def fold(model: _Model) -> _Model:
    """Return a copy in which every TransXNet has its inference form.

    The copy computes the same in fewer operations and cannot be trained; its
    parameters have other names than the published ones, so load weights
    first. Folding a folded model changes nothing.

    Args:
        model: A TransXNet, or a model that contains one, in evaluation mode.

    Raises:
        ValueError: The model contains no TransXNet, is in training mode, or
            has a ``conv_norm_cfg`` other than batch norms.
    """
    backbones = [m for m in model.modules() if isinstance(m, TransXNet)]
    if not backbones:
        raise ValueError(
            f'a {type(model).__name__} contains no TransXNet to fold'
        )
    if model.training or any(b.training for b in backbones):
        raise ValueError(
            'a model in training mode cannot be folded: its batch norms '
            'depend on the batch; call model.eval() first'
        )
    model = copy.deepcopy(model)
    for backbone in [m for m in model.modules() if isinstance(m, TransXNet)]:
        _fold_backbone(backbone)
    return model


def _fold_backbone(backbone: TransXNet) -> None:
    for part in backbone.modules():
        if isinstance(part, ConvNorm):
            _fold_norm(part)
    stages: Any = backbone.network[::2]
    for stage in stages:
        for i, block in enumerate(stage):
            if isinstance(block, Block):
                stage[i] = FoldedBlock(block)
    for part in list(backbone.modules()):
        # Depthwise convolutions and norms are faster in channels-last; the
        # memory format of the weights decides which one is used.
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    backbone.requires_grad_(False)


def _fold_norm(module: ConvNorm) -> None:
    """Fold the norm of a :class:`ConvNorm` into its convolution."""
    conv: Any = module.conv
    name, norm = list(module.named_children())[1]
    if not isinstance(norm, nn.Identity):
        module.conv = fuse_conv_bn_eval(conv, _checked_batch_norm(norm))
        setattr(module, name, nn.Identity())


def _checked_batch_norm(norm: nn.Module) -> Any:
    """Return the norm if it is a batch norm, else raise."""
    if not isinstance(norm, _BatchNorm):
        raise ValueError(
            f'a {type(norm).__name__} cannot be folded into a convolution; '
            'fold needs batch norms (conv_norm_cfg)'
        )
    return norm


def _add_identity(conv: DepthwiseConv2d) -> DepthwiseConv2d:
    """Add the residual of a depthwise convolution to its kernel."""
    conv = copy.deepcopy(conv)
    centre = conv.kernel_size[0] // 2
    conv.weight[..., centre, centre] += 1
    conv.residual = False
    return conv


def _scale_input(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Fold the norm in 1x1 ``conv(norm(x))`` into the convolution."""
    scale, shift = _scale_and_shift(_checked_batch_norm(norm))
    return _with_values(
        conv,
        conv.weight * scale.view(-1, 1, 1),
        (conv.weight.flatten(1) @ shift) + _bias(conv),
    )


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies by and adds, ``(C,)`` each."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _scale_output(conv: nn.Conv2d, scale: LayerScale) -> nn.Conv2d:
    """Fold the LayerScale in ``scale(conv(x))`` into the convolution."""
    return _with_values(
        conv,
        conv.weight * scale.weight,
        _bias(conv) * scale.weight.flatten() + scale.bias,
    )


def _bias(conv: nn.Conv2d) -> Tensor | float:
    return 0.0 if conv.bias is None else conv.bias


def _with_values(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None
) -> nn.Conv2d:
    """Copy a convolution and replace its weight and bias."""
    conv = copy.deepcopy(conv)
    conv.weight = nn.Parameter(weight)
    conv.bias = None if bias is None else nn.Parameter(bias)
    return conv


class _Inference(nn.Module):
    """A module that must not be trained."""

    def train(self, mode: bool = True) -> Any:
        """Refuse training mode.

        Raises:
            RuntimeError: ``mode`` is true.
        """
        if mode:
            raise RuntimeError(
                'a folded TransXNet is for inference; train the model that '
                'it was folded from'
            )
        return super().train(mode)


class ConvAct(_Inference):
    """A convolution and its activation.

    Args:
        conv: The convolution.
        act: The activation.
    """

    def __init__(self, conv: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    @computed_by(conv_gelu)
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` as the convolution does."""
        return self.act(self.conv(x))


class Affine(_Inference):
    """``weight * x + bias`` per channel.

    Args:
        weight: Weights ``(C, 1, 1)``.
        bias: Biases ``(C, 1, 1)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift ``(B, C, H, W)``."""
        return torch.addcmul(self.bias, x, self.weight)


class FoldedOSRA(_Inference, OSRA):
    """OSRA with the residual inside its local convolution's kernel.

    Args:
        osra: The trained OSRA.
    """

    def __init__(self, osra: OSRA) -> None:
        nn.Module.__init__(self)
        self.num_heads = osra.num_heads
        self.q = osra.q
        self.kv = osra.kv
        self.sr = osra.sr
        if isinstance(osra.sr, nn.Sequential):
            overlapping: Any
            overlapping, scaling = osra.sr
            conv, _, act = overlapping
            self.sr = nn.Sequential(ConvAct(conv, act), scaling)
        self.local_conv = _add_identity(osra.local_conv)


class FoldedMixer(_Inference):
    """D-Mixer with LayerScale.

    Args:
        mixer: The trained D-Mixer.
        scale: LayerScale after it.
    """

    def __init__(self, mixer: DMixer, scale: LayerScale) -> None:
        super().__init__()
        self.local_unit = mixer.local_unit
        self.global_unit = FoldedOSRA(mixer.global_unit)
        parts: Any = mixer.proj
        mix, act1, norm1, squeeze, act2, norm2, expand, norm3 = parts
        expand = fuse_conv_bn_eval(expand, _checked_batch_norm(norm3))
        self.proj = nn.Sequential(
            ConvAct(mix, act1), ConvAct(_scale_input(squeeze, norm1), act2)
        )
        self.expand = _scale_output(_scale_input(expand, norm2), scale)
        self.scale = nn.Parameter(scale.weight[..., 0])

    def forward(self, shortcut: Tensor, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Mix tokens of ``(B, C, H, W)`` and add them to the shortcut."""
        local_half, global_half = x.chunk(2, dim=1)
        x = torch.cat(
            (
                self.local_unit(local_half),
                self.global_unit(global_half, pos_bias),
            ),
            dim=1,
        )
        residual = torch.addcmul(shortcut, x, self.scale)
        return conv_add(self.expand, self.proj(x), residual)


class FoldedFFN(_Inference):
    """MS-FFN with LayerScale, one kernel size after the other.

    The hidden channels of different kernel sizes are independent until the
    last convolution, which sums over all. Computing them one by one needs a
    quarter of the memory and neither a split nor a concatenation.

    Args:
        ffn: The trained MS-FFN.
        scale: LayerScale after it.
    """

    def __init__(self, ffn: MSFFN, scale: LayerScale) -> None:
        super().__init__()
        first: Any = ffn.fc1
        last: Any = ffn.fc2
        convs: Any = ffn.dwconv.proj
        expand, act, norm = first
        squeeze = fuse_conv_bn_eval(last[0], _checked_batch_norm(last[1]))
        squeeze = _scale_output(_scale_input(squeeze, ffn.norm), scale)
        self.branches = nn.ModuleList()
        self.squeeze = nn.ModuleList()
        start = 0
        for conv in convs:
            part = slice(start, start + conv.out_channels)
            start = part.stop
            self.branches.append(
                nn.Sequential(
                    ConvAct(_only_outputs(expand, part), act),
                    *_norm_and_conv(
                        _only_channels(_checked_batch_norm(norm), part),
                        _add_identity(conv),
                        ffn.act,
                    ),
                )
            )
            self.squeeze.append(_only_inputs(squeeze, part))

    def forward(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)`` and add the result to the shortcut."""
        out = shortcut
        for branch, squeeze in zip(self.branches, self.squeeze, strict=True):
            out = conv_add(squeeze, branch(x), out)
        return out


def _norm_and_conv(
    norm: nn.BatchNorm2d, conv: DepthwiseConv2d, act: nn.Module
) -> list[nn.Module]:
    """A norm, a depthwise convolution and its activation.

    A kernel of size 1 needs no padding, so the norm folds into it.
    """
    if conv.kernel_size != (1, 1):
        return [norm, ConvAct(conv, act)]
    scale, shift = _scale_and_shift(norm)
    weight = conv.weight.flatten()
    affine = Affine(
        (weight * scale).view(-1, 1, 1),
        (weight * shift + _bias(conv)).view(-1, 1, 1),
    )
    return [ConvAct(affine, act)]


def _only_outputs(conv: nn.Conv2d, part: slice) -> nn.Conv2d:
    """The part of a 1x1 convolution that computes some of its outputs."""
    return _pointwise(
        conv.weight[part], None if conv.bias is None else conv.bias[part]
    )


def _only_inputs(conv: nn.Conv2d, part: slice) -> nn.Conv2d:
    """The part of a 1x1 convolution that reads some of its inputs.

    Only the first part has the bias, so all parts add up to the convolution.
    """
    return _pointwise(conv.weight[:, part], None if part.start else conv.bias)


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A 1x1 convolution with these values."""
    out_channels, in_channels = weight.shape[:2]
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias is not None)
    return _with_values(conv, weight, bias)


def _only_channels(norm: _BatchNorm, part: slice) -> nn.BatchNorm2d:
    """An evaluation-mode batch norm for some of the channels."""
    sliced = nn.BatchNorm2d(part.stop - part.start, norm.eps)
    sliced.load_state_dict(
        {
            name: value[part] if value.dim() else value
            for name, value in norm.state_dict().items()
        }
    )
    return sliced.to(norm.weight).eval()


class KeptMixer(_Inference):
    """Another token mixer than D-Mixer, with LayerScale.

    Args:
        mixer: The trained token mixer.
        scale: LayerScale after it.
    """

    def __init__(self, mixer: nn.Module, scale: LayerScale) -> None:
        super().__init__()
        self.mixer = mixer
        self.scale = scale

    def forward(self, shortcut: Tensor, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Mix tokens of ``(B, C, H, W)`` and add them to the shortcut."""
        return shortcut + self.scale(self.mixer(x, pos_bias))


class KeptFFN(_Inference):
    """Another feed-forward network than MS-FFN, with LayerScale.

    Args:
        ffn: The trained network.
        scale: LayerScale after it.
    """

    def __init__(self, ffn: nn.Module, scale: LayerScale) -> None:
        super().__init__()
        self.ffn = ffn
        self.scale = scale

    def forward(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)`` and add the result to the shortcut."""
        return shortcut + self.scale(self.ffn(x))


class FoldedBlock(_Inference):
    """The inference form of a :class:`Block`.

    Args:
        block: The trained block; its modules are reused.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.pos_embed = _add_identity(block.pos_embed)
        self.norm1 = block.norm1
        # Not of subclasses, whose formula may be another one.
        mixer: Any = block.token_mixer
        is_paper = type(mixer) is DMixer
        fold_mixer = FoldedMixer if is_paper else KeptMixer
        self.token_mixer = fold_mixer(mixer, block.layer_scale_1)
        self.norm2 = block.norm2
        ffn: Any = block.mlp
        fold_ffn = FoldedFFN if type(ffn) is MSFFN else KeptFFN
        self.mlp = fold_ffn(ffn, block.layer_scale_2)
        self.eval()

    def forward(self, x: Tensor, pos_bias: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``; see :meth:`Block.forward`."""
        x = self.pos_embed(x)
        x = self.token_mixer(x, self.norm1(x), pos_bias)
        return self.mlp(x, self.norm2(x))

"""TransXNet under timm's names: importing this module registers them.

    import mmtransxnet.apis.timm
    model = timm.create_model('transxnet_t', pretrained=True)

One class with timm's interface on top of the backbone; its state dict has
the names of the published classifier.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from mmengine.model import trunc_normal_init
from mmengine.runner import CheckpointLoader
from timm.layers import SelectAdaptivePool2d
from timm.layers.helpers import get_device_dtype
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
    resolve_pretrained_cfg,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mmtransxnet.models.arch import NUM_STAGES
from mmtransxnet.models.block import Block, PatchEmbed
from mmtransxnet.models.torchscript import ScriptableTransXNet
from mmtransxnet.models.transxnet import TransXNet
from mmtransxnet.weights.published import SCHEME
from mmtransxnet.weights.reader import state_dict_of

__all__ = ['TimmTransXNet']  # timm appends the model names

# Leaves for torch.fx: their control flow depends on sizes.
register_notrace_module(Block)
register_notrace_module(PatchEmbed)


class TimmTransXNet(TransXNet):
    """The published classifier with the methods that timm expects.

    ``forward_features`` returns the last stage through its norm, as the
    backbone does; ``forward_head`` pools and classifies.

    Args:
        arch: Size, see :class:`TransXNet`.
        num_classes: Number of classes, 0 for pooled features.
        in_chans: Channels of the image.
        img_size: Height and width in pixels for which the position tables
            are designed; for other sizes they are resized.
        global_pool: Pooling as in timm: ``'avg'``, ``'max'``, ``'avgmax'``,
            ``'catavgmax'``, or ``''`` for none.
        drop_rate: Dropout rate before the classifier.
        proj_drop_rate: Dropout rate inside MS-FFN.
        drop_path_rate: Stochastic depth rate of the last block.
        device: Device of the parameters.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        arch: str | dict = 't',
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        last = NUM_STAGES - 1
        super().__init__(
            arch=arch,
            image_size=_square(img_size),
            in_channels=in_chans,
            out_indices=(last,),
            drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        dims = self.arch['embed_dims']
        self.num_features = self.head_hidden_size = dims[last]
        self.feature_info = [
            {
                'num_chs': dims[stage],
                'reduction': 4 * 2**stage,
                'module': f'network.{2 * stage}.{layers - 1}',
            }
            for stage, layers in enumerate(self.arch['layers'])
        ]
        # Norm, pooling, 1x1 convolution: the published positions.
        norm = self.norm6
        del self.norm6
        self.classifier = nn.Sequential(norm, nn.Identity(), nn.Identity())
        self.reset_classifier(num_classes, global_pool)
        self.to(device=device, dtype=dtype)

    @property
    def global_pool(self) -> str:
        """Name of the pooling, empty for none."""
        return str(self.classifier[1].pool_type)

    def get_classifier(self) -> nn.Module:
        """The classifying layer."""
        return self.classifier[2]

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None
    ) -> None:
        """Replace the classifier by a randomly initialised one.

        Args:
            num_classes: Number of classes, 0 for pooled features.
            global_pool: Name of the pooling; None keeps it.
        """
        self.num_classes = num_classes
        if global_pool is not None:
            self.classifier[1] = SelectAdaptivePool2d(pool_type=global_pool)
        layer: nn.Module = nn.Identity()
        if num_classes > 0:
            pool = cast(SelectAdaptivePool2d, self.classifier[1])
            channels = self.num_features * pool.feat_mult()
            place = get_device_dtype(self)
            layer = nn.Conv2d(channels, num_classes, 1, **place)
            trunc_normal_init(layer, std=0.02)
        self.classifier[2] = layer
        self.classifier.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, to save memory."""
        for module in self.modules():
            if isinstance(module, Block):
                module.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers in the format of timm's layer-wise learning-rate decay.

        As :meth:`get_layer_depth`; with ``coarse``, a stage is a layer.
        """
        first = () if coarse else (0,)
        parts = [
            (
                rf'^network\.{2 * stage - 1}\.|^relative_pos_enc\.{stage}$',
                (2 * stage, *first),
            )
            for stage in range(NUM_STAGES)
        ]
        blocks = r'^network\.(\d+)' if coarse else r'^network\.(\d+)\.(\d+)'
        return {'stem': r'^patch_embed', 'blocks': [*parts, (blocks, None)]}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of stages.

        Args:
            x: Images ``(B, in_chans, H, W)``.
            indices: Stages; an integer n for the last n, None for all.
            norm: Whether the last stage's output goes through its norm; the
                published classifier has none for the others.
            stop_early: Whether to skip the stages after the last one
                requested.
            output_fmt: ``'NCHW'``.
            intermediates_only: Whether to omit the final features.

        Returns:
            Final features, as of :meth:`forward_features` unless stopped
            early, and a list of feature maps ``(B, C, H / stride,
            W / stride)``.

        Raises:
            ValueError: For another ``output_fmt``.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt is 'NCHW' only, not {output_fmt!r}")
        take, last = feature_take_indices(self._num_stages, indices)
        count = last + 1 if stop_early else self._num_stages
        outputs = []
        for stage in range(count):
            x = self.forward_stage(stage, x)
            final = norm and stage == NUM_STAGES - 1
            outputs.append(self.classifier[0](x) if final else x)
        intermediates = [outputs[stage] for stage in sorted(set(take))]
        if intermediates_only:
            return intermediates
        # Only the last stage has a norm.
        if count == NUM_STAGES:
            x = self.classifier[0](x)
        return x, intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove modules that the outputs of some stages do not need.

        Args:
            indices: As of :meth:`forward_intermediates`.
            prune_norm: Whether to drop the last stage's norm.
            prune_head: Whether to drop pooling and classifier.

        Returns:
            The stages.
        """
        take, last = feature_take_indices(self._num_stages, indices)
        shorter = last + 1 < self._num_stages
        self.network = self.network[: 2 * last + 1]
        self.relative_pos_enc = self.relative_pos_enc[: last + 1]
        if shorter:
            # The head expects the output of the last stage.
            channels = self.feature_info[last]['num_chs']
            self.num_features = self.head_hidden_size = channels
        if prune_norm or shorter:
            self.classifier[0] = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, '')
        return take

    @property
    def _num_stages(self) -> int:
        return len(self.relative_pos_enc)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map ``(B, in_chans, H, W)`` to ``(B, C, H / 32, W / 32)``."""
        for stage in range(self._num_stages):
            x = self.forward_stage(stage, x)
        return self.classifier[0](x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify.

        Args:
            x: What :meth:`forward_features` returns.
            pre_logits: Whether to stop before the classifier.

        Returns:
            ``(B, num_classes)``, or ``(B, C)`` without a classifier. Without
            pooling a map.
        """
        x = F.dropout(self.classifier[1](x), self.drop_rate, self.training)
        if not pre_logits:
            x = self.classifier[2](x)
        return x.flatten(1) if self.global_pool else x

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the module that ``torch.jit.script`` compiles instead."""
        last = self._num_stages - 1
        norm, pool, layer = self.classifier
        return nn.Sequential(
            ScriptableTransXNet(self, (last,), [norm]),
            _SingleOutput(),
            pool,
            nn.Dropout(self.drop_rate).train(self.training),
            layer,
            nn.Flatten() if self.global_pool else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Classify images ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


class _SingleOutput(nn.Module):
    """Unpack the output of a single stage."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        return outputs[0]


def _square(img_size: int | Sequence[int]) -> int:
    """Return the side of a square design size.

    Raises:
        ValueError: Height and width differ.
    """
    if isinstance(img_size, int):
        return img_size
    height, width = img_size
    if height != width:
        raise ValueError(
            f'img_size={tuple(img_size)}: position tables are made for '
            'squares; any input size works with any of them'
        )
    return height


def _config(weights: str, size: int = 224, crop: float = 0.9) -> dict:
    """Describe published weights to timm."""
    return {
        'url': SCHEME + weights,
        'input_size': (3, size, size),
        'pool_size': (size // 32, size // 32),
        'min_input_size': (3, 32, 32),
        'crop_pct': crop,
        'interpolation': 'bicubic',
        'first_conv': 'patch_embed.proj.conv',
        'classifier': 'classifier.2',
        'paper_ids': 'arXiv:2310.19380',
        'origin_url': 'https://github.com/LMMMEng/TransXNet',
    }


default_cfgs = generate_default_cfgs(
    {
        'transxnet_t.in1k': _config('t'),
        'transxnet_s.in1k': _config('s'),
        'transxnet_b.in1k': _config('b', crop=0.95),
        'transxnet_b_384.in1k': _config('b-384', size=384, crop=0.95),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Build a model as timm's own entry points do."""
    overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
    config = resolve_pretrained_cfg(
        variant, kwargs.get('pretrained_cfg'), overlay
    )
    elsewhere = config.file or config.hf_hub_id or config.state_dict
    is_published = str(config.url).startswith(SCHEME)
    if pretrained and is_published and not (elsewhere or config.source):
        # timm opens files and URLs; ``transxnet://`` weights are passed
        # loaded.
        content = CheckpointLoader.load_checkpoint(config.url, 'cpu')
        overlay['state_dict'] = state_dict_of(content)
    model = build_model_with_cfg(
        TimmTransXNet,
        variant,
        pretrained,
        pretrained_cfg_overlay=overlay,
        feature_cfg={'out_indices': (0, 1, 2, 3), 'feature_cls': 'getter'},
        **kwargs,
    )
    model.pretrained_cfg.pop('state_dict', None)
    return model


@register_model
def transxnet_t(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """TransXNet-T, 12.8 M parameters."""
    return _create('transxnet_t', pretrained, arch='t', **kwargs)


@register_model
def transxnet_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """TransXNet-S, 26.9 M parameters."""
    return _create('transxnet_s', pretrained, arch='s', **kwargs)


@register_model
def transxnet_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """TransXNet-B, 48.0 M parameters."""
    return _create('transxnet_b', pretrained, arch='b', **kwargs)


@register_model
def transxnet_b_384(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """TransXNet-B with position tables made for 384 pixels."""
    kwargs.setdefault('img_size', 384)
    return _create('transxnet_b_384', pretrained, arch='b', **kwargs)

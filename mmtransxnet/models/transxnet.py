"""TransXNet, the backbone.

Paper: TransXNet: Learning Both Global and Local Dynamics with a Dual Dynamic
Token Mixer for Visual Recognition, arXiv 2310.19380, IEEE TNNLS 2025.
Original: github.com/LMMMEng/TransXNet. Parameter names follow the original, so
published weights load unchanged; the code was written from scratch.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.fx
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtransxnet.kernels.recompute import MODES
from mmtransxnet.models.arch import NUM_STAGES, resolve_arch
from mmtransxnet.models.block import Block, PatchEmbed, Stage
from mmtransxnet.models.layers import LayerScale
from mmtransxnet.models.pretrained import PretrainedModule
from mmtransxnet.models.token_mixer import IDConv

# Smallest image side in pixels: the stride of the last stage.
MIN_SIZE = 32

# A leaf for torch.fx: its control flow depends on sizes.
torch.fx.wrap('check_size')


@MODELS.register_module()
class TransXNet(PretrainedModule):
    """TransXNet backbone for classification and dense prediction.

    Four stages of blocks; before each, a strided convolution with a norm:
    the stem (stride 4), then the downsampling (stride 2). The blocks of a
    stage share a table of attention biases (position table).

    In training, a batch norm that would see a single value per channel (one
    image, and a map of one position) normalises with its running statistics
    and does not update them.

    Args:
        arch: Size: ``'t'``/``'tiny'``, ``'s'``/``'small'``,
            ``'b'``/``'base'``, or a dict with the keys ``layers``,
            ``embed_dims``, ``kernel_size``, ``num_groups``, ``sr_ratio``,
            ``num_heads``, ``mlp_ratios``, four integers each.
        image_size: Height and width in pixels for which the position tables
            are designed; for inputs of other sizes they are resized.
        in_channels: Channels of the image.
        out_indices: Stages (0 to 3, ascending) whose outputs are returned,
            each through its own norm. Stages after the last of them are kept
            so that weights load, but are neither run nor trained.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the
            first i stages with their norms and position tables.
        norm_eval: Whether batch norms stay in evaluation mode in training.
        with_cp: Whether to save memory by recomputing each block in the
            backward pass.
        recompute: Whether to save memory by recomputing cheap operations
            (activations and the norms after them) in the backward pass:
            ``'off'``, ``'on'``, or ``'auto'``: on where it is worthwhile on
            the device (on CPUs for large maps; off on other devices, where it
            has not been measured). Norms that synchronise with other processes
            (SyncBN) are never recomputed: with them this is off, and
            ``with_cp`` keeps their outputs.
        drop_rate: Dropout rate inside MS-FFN.
        drop_path_rate: Stochastic depth rate of the last block; it grows
            linearly from 0.
        layer_scale_init_value: Initial LayerScale weight.
        norm_cfg: Config of the blocks' norms and the output norms.
        conv_norm_cfg: Config of the norms of the convolutions.
        act_cfg: Config of the activations.
        token_mixer_cfg: The token mixer of the blocks: a registered module
            (``type``) and its own arguments. It is built for each block with
            the arguments of :class:`~mmtransxnet.models.token_mixer.DMixer`
            and maps ``(B, C, H, W)`` and the position bias to
            ``(B, C, H, W)``. The position tables are not trained if it has
            ``uses_pos_bias = False``.
        ffn_cfg: The feed-forward network of the blocks, likewise: built with
            the arguments of :class:`~mmtransxnet.models.ms_ffn.MSFFN`; maps
            ``(B, C, H, W)`` to ``(B, C, H, W)``.
        init_cfg: Initialisation config of mmengine, for example
            ``dict(type='Pretrained', checkpoint='transxnet://t')``, plus other
            arguments of :func:`~mmtransxnet.weights.load_weights`. Without it,
            weights are initialised as published.

    Raises:
        ValueError: A setting is out of range; the message names it.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = 't',
        image_size: int = 224,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        recompute: str = 'auto',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-5,
        norm_cfg: dict = dict(type='GN', num_groups=1),  # noqa: B006
        conv_norm_cfg: dict = dict(type='BN'),  # noqa: B006
        act_cfg: dict = dict(type='GELU'),  # noqa: B006
        token_mixer_cfg: dict = dict(type='DMixer'),  # noqa: B006
        ffn_cfg: dict = dict(type='MSFFN'),  # noqa: B006
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = resolve_arch(arch)
        self.out_indices = _checked_out_indices(out_indices)
        self.frozen_stages = _checked_frozen_stages(frozen_stages)
        if image_size < MIN_SIZE:
            raise ValueError(
                f'image_size={image_size} is below {MIN_SIZE} pixels'
            )
        if recompute not in MODES:
            raise ValueError(
                f'recompute={recompute!r} is not one of {", ".join(MODES)}'
            )
        self.norm_eval = norm_eval

        dims = self.arch['embed_dims']
        self.patch_embed = PatchEmbed(
            in_channels, dims[0], 7, stride=4, conv_norm_cfg=conv_norm_cfg
        )
        # The position tables, one per stage: attention biases for the queries
        # and keys of a map of the design size.
        self.relative_pos_enc = nn.ParameterList(
            self._position_table(stage, image_size)
            for stage in range(NUM_STAGES)
        )
        last = sum(self.arch['layers']) - 1
        drop_path_rates = (drop_path_rate * k / last for k in range(last + 1))
        # Even indices are stages, odd indices the downsampling between them:
        # the published numbering.
        self.network = nn.ModuleList()
        mixers = []
        for stage in range(NUM_STAGES):
            if stage > 0:
                downsampling = PatchEmbed(
                    dims[stage - 1],
                    dims[stage],
                    3,
                    stride=2,
                    conv_norm_cfg=conv_norm_cfg,
                )
                self.network.append(downsampling)
            blocks = [
                Block(
                    dims[stage],
                    kernel_size=self.arch['kernel_size'][stage],
                    num_groups=self.arch['num_groups'][stage],
                    num_heads=self.arch['num_heads'][stage],
                    sr_ratio=self.arch['sr_ratio'][stage],
                    mlp_ratio=self.arch['mlp_ratios'][stage],
                    drop_rate=drop_rate,
                    drop_path_rate=next(drop_path_rates),
                    layer_scale_init_value=layer_scale_init_value,
                    norm_cfg=norm_cfg,
                    conv_norm_cfg=conv_norm_cfg,
                    act_cfg=act_cfg,
                    with_cp=with_cp,
                    recompute=recompute,
                    token_mixer_cfg=token_mixer_cfg,
                    ffn_cfg=ffn_cfg,
                )
                for _ in range(self.arch['layers'][stage])
            ]
            self.network.append(Stage(blocks, self.arch['sr_ratio'][stage]))
            mixers.append(blocks[0].token_mixer)
        for stage in self.out_indices:
            norm = build_norm_layer(norm_cfg, dims[stage])[1]
            self.add_module(output_norm_name(stage), norm)

        self._unread_tables = [
            stage
            for stage in range(NUM_STAGES)
            if not getattr(mixers[stage], 'uses_pos_bias', True)
        ]
        self._initialise()
        self.train()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: Images ``(B, in_channels, H, W)``, H and W at least 32.

        Returns:
            One feature map ``(B, C, H / stride, W / stride)`` (sizes rounded
            up) for each of ``out_indices``.

        Raises:
            ValueError: The images are smaller than 32 pixels.
        """
        outputs = []
        for stage in range(self.out_indices[-1] + 1):
            x = self.forward_stage(stage, x)
            if stage in self.out_indices:
                outputs.append(getattr(self, output_norm_name(stage))(x))
        return tuple(outputs)

    def forward_stage(self, stage: int, x: Tensor) -> Tensor:
        """Run one stage, including the stem or downsampling before it.

        Args:
            stage: Index of the stage, 0 to 3.
            x: Images for stage 0, else the output of the previous stage,
                ``(B, C, H, W)``.

        Returns:
            Feature map without its output norm.

        Raises:
            ValueError: The images are smaller than 32 pixels.
        """
        if stage == 0:
            check_size(x)
            x = self.patch_embed(x)
        else:
            x = self.network[2 * stage - 1](x)
        return self.network[2 * stage](x, self.relative_pos_enc[stage])

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return tuple(self.arch['embed_dims'][i] for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride of each output relative to the image, in pixels."""
        return tuple(4 * 2**i for i in self.out_indices)

    def _position_table(self, stage: int, image_size: int) -> nn.Parameter:
        queries = math.ceil(image_size / (4 * 2**stage))
        keys = math.ceil(queries / self.arch['sr_ratio'][stage])
        heads = self.arch['num_heads'][stage]
        return nn.Parameter(torch.empty(1, heads, queries**2, keys**2))

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise the weights of all modules as published."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, IDConv):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.trunc_normal_(module.bias, std=0.02)
            elif isinstance(module, LayerScale):
                nn.init.constant_(module.weight, module.init_value)
                nn.init.zeros_(module.bias)
        for table in self.relative_pos_enc:
            nn.init.zeros_(table)

    def _parts(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """Modules and parameters of one stage."""
        parts = [self.network[2 * stage], self.relative_pos_enc[stage]]
        if stage > 0:
            parts.append(self.network[2 * stage - 1])
        if stage in self.out_indices:
            parts.append(self.get_submodule(output_norm_name(stage)))
        return parts

    def _freeze(self) -> None:
        """Exclude frozen and unused parts from training."""
        frozen: list[nn.Module | nn.Parameter] = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        unused = range(self.out_indices[-1] + 1, NUM_STAGES)
        for stage in (*range(self.frozen_stages), *unused):
            frozen += self._parts(stage)
        frozen += [self.relative_pos_enc[i] for i in self._unread_tables]
        for part in frozen:
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> 'TransXNet':
        """Set the mode, respecting frozen stages and ``norm_eval``."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the module that ``torch.jit.script`` compiles instead."""
        # Imported here: the module imports this class.
        from mmtransxnet.models.torchscript import ScriptableTransXNet

        names = map(output_norm_name, self.out_indices)
        norms = [self.get_submodule(name) for name in names]
        return ScriptableTransXNet(self, self.out_indices, norms)

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning-rate decay.

        The stem is layer 0; every block is a layer, with the downsampling
        and the position table in front of its stage; output norms and all that
        follows the backbone are the last layer.

        Args:
            param_name: Name of the parameter.
            prefix: Prefix of the backbone's parameters in the name.

        Returns:
            The depth and the number of layers.
        """
        layers = self.arch['layers']
        num_layers = sum(layers) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        kind, *path = param_name[len(prefix) :].split('.')
        if kind == 'patch_embed':
            return 0, num_layers
        if kind == 'relative_pos_enc':
            stage, block = int(path[0]), 0
        elif kind == 'network':
            # Downsampling (odd indices) belongs to the stage after it.
            position = int(path[0])
            stage = (position + 1) // 2
            block = 0 if position % 2 else int(path[1])
        else:
            return num_layers - 1, num_layers
        return 1 + sum(layers[:stage]) + block, num_layers


def check_size(images: Tensor, min_size: int = MIN_SIZE) -> None:
    """Raise an error for images ``(B, C, H, W)`` that are too small."""
    height, width = images.size(2), images.size(3)
    if height < min_size or width < min_size:
        raise ValueError(
            f'TransXNet needs images of at least {min_size} x {min_size} '
            f'pixels, got {height} x {width}; resize or pad'
        )


def output_norm_name(stage: int) -> str:
    """Published name of the output norm of a stage."""
    return f'norm{2 * stage}'


def _checked_out_indices(out_indices: Sequence[int]) -> tuple[int, ...]:
    indices = tuple(out_indices)
    stages = range(NUM_STAGES)
    if not indices or list(indices) != [i for i in stages if i in indices]:
        raise ValueError(
            f'out_indices={indices} must be ascending stages out of '
            f'{list(stages)}, at least one'
        )
    return indices


def _checked_frozen_stages(frozen_stages: int) -> int:
    if frozen_stages not in range(-1, NUM_STAGES + 1):
        raise ValueError(
            f'frozen_stages={frozen_stages} must be -1 (none), 0 (the stem) '
            f'or 1 to {NUM_STAGES} (the stem and as many stages)'
        )
    return frozen_stages

"""What optimisation needs beyond mmengine.

timm's schedule, layer-wise learning rates for any model, mixed precision on
any device.
"""

import math
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import (
    AmpOptimWrapper,
    DefaultOptimWrapperConstructor,
    OptimWrapper,
)
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """The schedule of timm: a cosine whose start a warm-up takes the place of.

    The rate of epoch t, constant within the epoch, is linear from
    ``warmup_lr`` to the base rate over ``warmup_epochs``, then
    ``eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2``. MMEngine's
    own cosine would either begin after the warm-up or be multiplied with it.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_epochs: Length of the warm-up in epochs.
        warmup_lr: Rate of the first epoch for the optimizer's own rate;
            groups with another rate (layer-wise decay) start in proportion.
        eta_min: Rate at ``T_max``, likewise.
        T_max: Length of the cosine in epochs, with the warm-up.
        **kwargs: See mmengine's ``_ParamScheduler``.
    """

    def __init__(
        self,
        optimizer: Any,
        warmup_epochs: int,
        warmup_lr: float,
        eta_min: float,
        T_max: int,
        **kwargs: Any,
    ) -> None:
        self.warmup_epochs = warmup_epochs
        self.warmup_lr = warmup_lr
        self.eta_min = eta_min
        self.T_max = T_max
        super().__init__(optimizer, 'lr', **kwargs)

    def _get_value(self) -> list[float]:
        optimizer: Any = getattr(self.optimizer, 'optimizer', self.optimizer)
        # Nothing is in proportion to a rate of 0; the largest stands in.
        base = optimizer.defaults['lr'] or max(self.base_values)
        factor = self._factor(base) if base else 0.0
        return [base * factor for base in self.base_values]

    def _factor(self, base: float) -> float:
        """The rate of this epoch as a part of the base rate."""
        epoch = self.last_step
        if epoch < self.warmup_epochs:
            start = self.warmup_lr / base
            return start + (1 - start) * epoch / self.warmup_epochs
        floor = self.eta_min / base
        cosine = math.cos(math.pi * min(epoch / self.T_max, 1))
        return floor + (1 - floor) * (1 + cosine) / 2


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that decay from the heads to the stem, for any model.

    The rate of a parameter in layer d of D (``backbone.get_layer_depth``,
    heads and necks being the last layer) is
    ``lr * layer_decay_rate ** (D - 1 - d)``, times what the other entries of
    ``paramwise_cfg`` say. mmpretrain's constructor does the same for
    classifiers only; those of mmdet and mmseg know backbones by name.

    Args:
        optim_wrapper_cfg: See mmengine.
        paramwise_cfg: As mmengine's, and ``layer_decay_rate``, at most 1.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        if 'layer_decay_rate' not in (paramwise_cfg or {}):
            raise ValueError(
                'LayerDecayOptimWrapperConstructor needs '
                'paramwise_cfg.layer_decay_rate, for example 0.9'
            )
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(
        self, params: list[dict], module: Any, prefix: str = '', **kwargs
    ) -> None:
        """Add the parameters of a module, a group each."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # a part of the model; the whole follows
            return
        names = {id(p): name for name, p in module.named_parameters()}
        decay_rate = self.paramwise_cfg['layer_decay_rate']
        for group in params:
            (parameter,) = group['params']
            depth, count = module.backbone.get_layer_depth(
                names[id(parameter)], 'backbone.'
            )
            scale = decay_rate ** (count - 1 - depth)
            group['lr'] = group.get('lr', self.base_lr) * scale


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(AmpOptimWrapper):
    """Mixed precision on a GPU (mmengine's) and on a CPU.

    On a GPU this is mmengine's ``AmpOptimWrapper``: float16 with loss
    scaling, or the dtype asked for. mmengine refuses a CPU, which computes in
    bfloat16 and, its exponent being float32's, needs no loss scaling.

    Args:
        loss_scale: As mmengine's; not used on a CPU.
        dtype: ``'float16'`` or ``'bfloat16'``; None for the device's default.
        use_fsdp: As mmengine's.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: float16 is asked for on a CPU.
    """

    def __init__(
        self,
        loss_scale: Any = 'dynamic',
        dtype: str | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        if get_device() != 'cpu':
            super().__init__(loss_scale, dtype, use_fsdp, **kwargs)
            return
        if dtype not in (None, 'bfloat16'):
            raise ValueError(
                f'mixed precision with dtype={dtype!r} needs a GPU; on a CPU '
                "use dtype='bfloat16'"
            )
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self.cast_dtype = torch.bfloat16

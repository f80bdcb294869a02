"""Layer-wise learning rates for any model around the backbone."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that decay from the heads to the stem, for any model.

    The rate of a parameter in layer d of D (``backbone.get_layer_depth``,
    heads and necks being the last layer) is
    ``lr * layer_decay_rate ** (D - 1 - d)``, times the factors of the other
    entries of ``paramwise_cfg``. mmpretrain's constructor does the same for
    classifiers only; those of mmdet and mmseg support certain backbones by
    name.

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
        """Add the parameters of a module, one group per parameter."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # a submodule; handled with the model
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

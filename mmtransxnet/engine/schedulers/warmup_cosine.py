"""timm's cosine schedule with warm-up."""

import math
from typing import Any

from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """timm's schedule: a cosine whose first epochs are replaced by a warm-up.

    The rate of epoch t, constant within the epoch, is linear from
    ``warmup_lr`` to the base rate over ``warmup_epochs``, then
    ``eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2``. MMEngine's
    own cosine would either start after the warm-up or be multiplied with it.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_epochs: Length of the warm-up in epochs.
        warmup_lr: Rate of the first epoch for the optimizer's own rate;
            groups with another rate (layer-wise decay) start in proportion.
        eta_min: Rate at ``T_max``, likewise.
        T_max: Length of the cosine in epochs, including the warm-up.
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
        # A rate of 0 has no proportion; the largest rate is used instead.
        base = optimizer.defaults['lr'] or max(self.base_values)
        factor = self._factor(base) if base else 0.0
        return [base * factor for base in self.base_values]

    def _factor(self, base: float) -> float:
        """The rate of this epoch divided by the base rate."""
        epoch = self.last_step
        if epoch < self.warmup_epochs:
            start = self.warmup_lr / base
            return start + (1 - start) * epoch / self.warmup_epochs
        floor = self.eta_min / base
        cosine = math.cos(math.pi * min(epoch / self.T_max, 1))
        return floor + (1 - floor) * (1 + cosine) / 2

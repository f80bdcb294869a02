"""Mixed precision on any device."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(AmpOptimWrapper):
    """Mixed precision on a GPU (mmengine's) and on a CPU.

    On a GPU this is mmengine's ``AmpOptimWrapper``: float16 with loss
    scaling, or the requested dtype. mmengine does not support CPUs, which
    compute in bfloat16; that has the exponent of float32 and needs no loss
    scaling.

    Args:
        loss_scale: As mmengine's; not used on a CPU.
        dtype: ``'float16'`` or ``'bfloat16'``; None for the device's default.
        use_fsdp: As mmengine's.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: float16 is requested on a CPU.
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

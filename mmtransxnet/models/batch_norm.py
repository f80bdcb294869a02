"""Contexts that change which statistics batch norms use or update.

They work on any module that contains batch norms (BN, SyncBN, whatever the
config chose): mmcv builds those, so subclassing them is not an option.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def _training_norms_with(module: nn.Module, **values: Any) -> Iterator[None]:
    """Set attributes of all batch norms that are in training mode."""
    norms = [
        m for m in module.modules() if isinstance(m, _BatchNorm) and m.training
    ]
    before = [{name: getattr(norm, name) for name in values} for norm in norms]
    for norm in norms:
        _set(norm, values)
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            _set(norm, old)


def _set(norm: nn.Module, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(norm, name, value)


def no_statistics_update(module: nn.Module) -> AbstractContextManager:
    """Let the batch norms inside keep their running statistics.

    They still normalise with the statistics of the batch. For activation
    checkpointing: the recomputation must not count the same batch twice,
    but must save the same tensors, the running statistics among them.
    """
    # SyncBN insists on a counter; a spare one counts the recomputation.
    spare = torch.tensor(0)
    return _training_norms_with(
        module, momentum=0.0, num_batches_tracked=spare
    )


def statistics_for(
    module: nn.Module, num_values: int
) -> AbstractContextManager:
    """Choose the statistics of the batch norms inside a training module.

    One value has no variance, and torch refuses it (the published code
    crashes on a batch of one image). The norms then normalise with their
    running statistics and do not update them, as in evaluation. With SyncBN
    the other processes contribute values, and a fall-back on one process
    would leave them waiting: it is left alone.

    Args:
        module: The module that contains the norms.
        num_values: Values per channel that they are going to see,
            ``B * H * W``.
    """
    if num_values > 1 or not module.training or _synchronised(module):
        return nullcontext()
    return _training_norms_with(module, training=False)


def _synchronised(module: nn.Module) -> bool:
    """Whether SyncBN shares statistics with other processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return dist.get_world_size() > 1 and any(
        isinstance(m, nn.SyncBatchNorm) for m in module.modules()
    )

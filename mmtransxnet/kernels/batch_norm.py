"""Contexts that change which statistics batch norms use or update.

They work on any module that contains batch norms (BN, SyncBN, whatever the
config chose): mmcv builds those, so subclassing them is not an option.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from mmengine.model.utils import _BatchNormXd
from torch import nn

# Of these it is known that they ask no other process; the last is what
# mmengine makes of SyncBN where there is none.
_LOCAL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, _BatchNormXd)


def training_norms(module: nn.Module) -> list[Any]:
    """The norms inside that normalise with the statistics of the batch."""
    return [
        part
        for part in module.modules()
        if hasattr(part, 'running_mean') and part.training
    ]


def synchronised_norms(module: nn.Module) -> list[Any]:
    """The training norms inside that may ask other processes.

    Those are all that are not torch's own local ones. Every process must
    call them equally often and in the same order, whatever batch it has: a
    process that waits for one call too many waits for ever.
    """
    return [n for n in training_norms(module) if type(n) not in _LOCAL]


@contextmanager
def _with(norms: list[Any], **values: Any) -> Iterator[None]:
    """Set attributes of norms."""
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
    return _with(
        training_norms(module), momentum=0.0, num_batches_tracked=spare
    )


def statistics_for(
    module: nn.Module, num_values: int
) -> AbstractContextManager:
    """Choose the statistics of the batch norms inside a training module.

    One value has no variance, and torch refuses it (the published code
    crashes on a batch of one image). The norms then normalise with their
    running statistics and do not update them, as in evaluation. Where other
    processes contribute values, a fall-back on one process would leave them
    waiting: such norms are left alone.

    Args:
        module: The module that contains the norms.
        num_values: Values per channel that they are going to see,
            ``B * H * W``.
    """
    if num_values > 1 or not module.training or _waits_for_others(module):
        return nullcontext()
    return _with(training_norms(module), training=False)


def _waits_for_others(module: nn.Module) -> bool:
    """Whether norms inside share statistics with other processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return dist.get_world_size() > 1 and bool(synchronised_norms(module))

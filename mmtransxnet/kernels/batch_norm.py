"""Batch norms for single values and for recomputation.

They apply to any batch norm that a config selects (BN, SyncBN, ...), as built
by mmcv.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.model.utils import _BatchNormXd
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Norms known not to communicate; the last is what mmengine converts SyncBN to.
_LOCAL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, _BatchNormXd)


class SingleValueNorm(_BatchNorm):
    """A batch norm that accepts a single value per channel in training.

    A single value has no variance, and torch raises an error (the published
    code crashes on a batch of one image). The norm then normalises with its
    running statistics and does not update them, as in evaluation. Norms that
    synchronise with other processes are not changed: a fall-back in one
    process would leave the others waiting.
    """

    original: Any
    """The class that this class extends."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        of_batch = self.training
        if not torch.jit.is_scripting():
            if not self.training or not _is_single_value(self, x):
                return super().forward(x)
            of_batch = False
        elif self.training:
            of_batch = x.numel() > x.size(1)
            if of_batch and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            of_batch,
            self.momentum,  # type: ignore[arg-type]
            self.eps,
        )

    def __reduce__(self) -> Any:
        # Pickle cannot find a class that was created dynamically.
        return _empty, (self.original,), self.__dict__


@cache
def _extended_class(original: Any) -> Any:
    """Return a norm class extended by the rule for single values."""
    body = dict(original=original, __module__=__name__)
    return type(original.__name__, (SingleValueNorm, original), body)


def _empty(original: Any) -> Any:
    extended = _extended_class(original)
    return extended.__new__(extended)


def accept_single_values(module: nn.Module) -> None:
    """Make all batch norms inside accept a single value per channel."""
    for part in module.modules():
        if isinstance(part, _BatchNorm) and not isinstance(
            part, SingleValueNorm
        ):
            original: Any = type(part)
            part.__class__ = _extended_class(original)


def _is_single_value(norm: _BatchNorm, x: Tensor) -> bool:
    """Whether torch would reject the batch and no other process adds to it."""
    if x.numel() != x.size(1) or norm.running_mean is None:
        return False
    together = dist.is_available() and dist.is_initialized()
    alone = not together or dist.get_world_size() == 1
    return alone or _original_class(norm) in _LOCAL


def _original_class(norm: nn.Module) -> Any:
    return norm.original if isinstance(norm, SingleValueNorm) else type(norm)


def training_norms(module: nn.Module) -> list[Any]:
    """The norms inside that normalise with batch statistics."""
    return [
        part
        for part in module.modules()
        if hasattr(part, 'running_mean') and part.training
    ]


def synchronised_norms(module: nn.Module) -> list[Any]:
    """The training norms inside that may communicate.

    These are all norms except torch's local ones. Every process must call them
    equally often and in the same order, whatever its batch: otherwise the
    processes deadlock.
    """
    norms = training_norms(module)
    return [norm for norm in norms if _original_class(norm) not in _LOCAL]


@contextmanager
def no_statistics_update(module: nn.Module) -> Iterator[None]:
    """Do not update the running statistics of the batch norms inside.

    They still normalise with the statistics of the batch. For activation
    checkpointing: the recomputation must not count the same batch twice,
    but must save the same tensors, the running statistics among them.
    """
    norms = training_norms(module)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    # SyncBN requires a counter; a copy counts the recomputation.
    spare = torch.tensor(0)
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, spare
    try:
        yield
    finally:
        for norm, values in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = values

"""Batch norms for single values and for recomputation.

They apply to any batch norm that a config selects (BN, SyncBN, ...), as built
by mmcv.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from mmengine.model.utils import _BatchNormXd
from torch import Tensor, nn

from mmtransxnet.kernels.formula import in_place_of

# Norms known not to communicate; the last is what mmengine converts SyncBN to.
LOCAL_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, _BatchNormXd)


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
    return [norm for norm in norms if type(norm) not in LOCAL_NORMS]


class _Setting:
    """Set attributes of norms.

    A class, as torch 2.6 cannot compile a context that is a generator.

    Args:
        norms: The norms.
        values: Values by the names of the attributes.
    """

    def __init__(self, norms: list[Any], **values: Any) -> None:
        self._norms, self._values = norms, values
        self._before: list[dict[str, Any]] = []

    def __enter__(self) -> None:
        self._before = [
            {name: getattr(norm, name) for name in self._values}
            for norm in self._norms
        ]
        for norm in self._norms:
            _set(norm, self._values)

    def __exit__(self, *error: Any) -> None:
        for norm, old in zip(self._norms, self._before, strict=True):
            _set(norm, old)


def _set(norm: nn.Module, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(norm, name, value)


def no_statistics_update(module: nn.Module) -> AbstractContextManager:
    """Do not update the running statistics of the batch norms inside.

    They still normalise with the statistics of the batch. For activation
    checkpointing: the recomputation must not count the same batch twice,
    but must save the same tensors, the running statistics among them.
    """
    # SyncBN requires a counter; a copy counts the recomputation.
    spare = torch.tensor(0)
    return _Setting(
        training_norms(module), momentum=0.0, num_batches_tracked=spare
    )


def _statistics_for(module: nn.Module, x: Tensor) -> AbstractContextManager:
    """Select the statistics of the norms inside, which see maps like ``x``.

    A single value per channel has no variance, and torch raises an error (the
    published code crashes on a batch of one image). The norms then normalise
    with their running statistics and do not update them, as in evaluation.
    Norms that synchronise with other processes are not changed: a fall-back
    in one process would leave the others waiting.
    """
    if x.numel() > x.size(1) or not module.training or _waits(module):
        return nullcontext()
    return _Setting(training_norms(module), training=False)


def _waits(module: nn.Module) -> bool:
    """Whether norms inside share statistics with other processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return dist.get_world_size() > 1 and bool(synchronised_norms(module))


def conv_norm(layers: Any, x: Tensor) -> Any:
    """Run a convolution and what follows, also on a single value per channel.

    Args:
        layers: A :class:`~mmtransxnet.models.layers.ConvNorm`.
        x: Feature map ``(B, C, H, W)``.
    """
    if not layers.training:
        return NotImplemented
    conv, *others = layers
    x = conv(x)
    with _statistics_for(layers, x):
        for layer in others:
            x = layer(x)
    return x


def accepts_single_values(
    forward: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """Decorate a ``forward`` that keeps the size of its map.

    Its norms accept a map with a single value per channel in training.
    """
    context = _statistics_for

    def call(self: Any, x: Tensor, *inputs: Tensor) -> Tensor:
        with context(self, x):
            return forward(self, x, *inputs)

    return in_place_of(forward, call)

"""Decisions on the device, without synchronising with the host."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Integers of the same size have no NaN: zero times any of them is zero.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def are_not_finite(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Whether any value of the tensors is NaN or infinite.

    If so, the sum of all magnitudes is not finite either. It takes a third of
    the time of checking each value; squares would overflow earlier.

    Args:
        tensors: Of any shapes.
        like: Tensor on the device of the result.

    Returns:
        A boolean ``()`` on the device.
    """
    if not tensors:
        return torch.zeros((), dtype=torch.bool, device=like.device)
    tensors = [t._values() if t.is_sparse else t for t in tensors]
    # In half precision, the sum would overflow.
    wide = [t if t.dtype.itemsize >= 4 else t.float() for t in tensors]
    total = nn.utils.get_total_norm(wide, 1.0)
    return ~total.to(like.device).isfinite()


def is_scaled(wrapper: Any) -> bool:
    """Whether an optimizer wrapper scales losses and so skips steps."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler is not None and scaler.is_enabled()


class Snapshot:
    """Copies of tensors that can be restored.

    Tensors of the same type are copied by a single call.

    Args:
        tensors: Of any shapes, on one device. Expanded ones, whose values
            share memory, are left out: they are not written to.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._pairs = [
            (same, [tensor.clone() for tensor in same])
            for same in _by_type(t for t in tensors if not _is_expanded(t))
        ]

    @torch.no_grad()
    def take(self) -> None:
        """Copy the current values."""
        for tensors, copies in self._pairs:
            torch._foreach_copy_(copies, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the last copy."""
        for tensors, copies in self._pairs:
            torch._foreach_copy_(tensors, copies)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the last copy temporarily."""
        now = Snapshot([t for tensors, _ in self._pairs for t in tensors])
        self.restore()
        try:
            yield
        finally:
            now.restore()

    @torch.no_grad()
    def restore_where(self, flag: Tensor) -> None:
        """Restore the last copy if a flag on the device is set.

        Args:
            flag: 0 or 1, ``()``.
        """
        for tensors, copies in self._pairs:
            bits, copied = map(_bits, (tensors, copies))
            chosen = flag.to(bits[0].dtype)
            torch._foreach_mul_(bits, 1 - chosen)
            torch._foreach_add_(bits, torch._foreach_mul(copied, chosen))


def _by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype].append(tensor)
    return list(groups.values())


def _is_expanded(tensor: Tensor) -> bool:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in sizes)


def _bits(tensors: Sequence[Tensor]) -> list[Tensor]:
    """View tensors of one type as integers of the same bits.

    Autograd, which may have saved them, does not notice writes to the views.
    """
    parts = [t._values() if t.is_sparse else t for t in tensors]
    real = [torch.view_as_real(t) if t.is_complex() else t for t in parts]
    kind = _BITS[real[0].dtype.itemsize]
    return [tensor.data.view(kind) for tensor in real]


def can_skip(optimizer: Any) -> bool:
    """Whether an optimizer can skip a step depending on a device flag."""
    if not getattr(optimizer, '_step_supports_amp_scaling', False):
        return False
    # torch's fused SGD does not initialise the momentum if it skips the first
    # step.
    return (
        not isinstance(optimizer, torch.optim.SGD)
        or bool(optimizer.state)
        or not any(group['momentum'] for group in optimizer.param_groups)
    )


@contextmanager
def step_unless(
    flag: Tensor, wrapper: Any, parameters: Sequence[nn.Parameter]
) -> Iterator[None]:
    """Run the optimizer's step unless a flag on the device is set.

    If it is set, optimizers that support loss scaling (``fused=True``) change
    nothing, and with a loss scaler none does. Others get gradients of zero.

    Args:
        flag: 0 or 1, ``()``.
        wrapper: Wrapper of the optimizer.
        parameters: Its parameters.
    """
    optimizer = wrapper.optimizer
    gradients = [p.grad for p in parameters if p.grad is not None]
    if is_scaled(wrapper):
        # The scaler checks the gradients itself and finds this value.
        for gradient in gradients[:1]:
            gradient.mul_(torch.where(flag > 0, torch.nan, 1.0))
        yield
    elif can_skip(optimizer):
        optimizer.grad_scale, optimizer.found_inf = None, flag
        try:
            yield
        finally:
            del optimizer.grad_scale, optimizer.found_inf
    else:
        _zero_where(flag, gradients)
        yield


@torch.no_grad()
def _zero_where(flag: Tensor, tensors: Sequence[Tensor]) -> None:
    for same in _by_type(tensors):
        bits = _bits(same)
        torch._foreach_mul_(bits, 1 - flag.to(bits[0].dtype))

"""Decisions that the device takes, so that no host waits for it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# As numbers without a sign of NaN: zero times these is zero.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def are_not_finite(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Whether numbers in some of the tensors are NaN or infinite.

    The sum of all magnitudes is, then. It takes a third of the time that
    looking at each number takes, and squares would overflow where the
    numbers do not yet.

    Args:
        tensors: Of any shapes.
        like: Tensor on the device of the answer.

    Returns:
        A boolean ``()`` on the device.
    """
    if not tensors:
        return torch.zeros((), dtype=torch.bool, device=like.device)
    # Of half precision, the sum would overflow.
    wide = [t if t.dtype.itemsize >= 4 else t.float() for t in tensors]
    total = nn.utils.get_total_norm(wide, 1.0)
    return ~total.to(like.device).isfinite()


def is_scaled(wrapper: Any) -> bool:
    """Whether an optimizer wrapper scales losses, and skips steps itself."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler is not None and scaler.is_enabled()


class Snapshot:
    """Copies of tensors, to go back to.

    Tensors of a type are copied by one call, whatever their number.

    Args:
        tensors: Of any shapes, on one device.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        by_type = defaultdict(list)
        for tensor in tensors:
            by_type[tensor.dtype].append(tensor)
        self._pairs = [
            (same, [tensor.clone() for tensor in same])
            for same in by_type.values()
        ]

    @torch.no_grad()
    def take(self) -> None:
        """Copy all values as they are."""
        for tensors, copies in self._pairs:
            torch._foreach_copy_(copies, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the last copy."""
        for tensors, copies in self._pairs:
            torch._foreach_copy_(tensors, copies)

    @torch.no_grad()
    def restore_where(self, flag: Tensor) -> None:
        """Go back to the last copy if a flag on the device is set.

        Args:
            flag: 0 or 1, a number.
        """
        for tensors, copies in self._pairs:
            bits, copied = map(_bits, (tensors, copies))
            chosen = flag.to(bits[0].dtype)
            torch._foreach_mul_(bits, 1 - chosen)
            torch._foreach_add_(bits, torch._foreach_mul(copied, chosen))


def _bits(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one type as whole numbers of the same bits."""
    kind = _BITS[tensors[0].dtype.itemsize]
    return [tensor.view(kind) for tensor in tensors]


@contextmanager
def step_unless(
    flag: Tensor, optimizer: Any, parameters: Sequence[nn.Parameter]
) -> Iterator[None]:
    """Let an optimizer step only if a flag on the device is not set.

    Optimizers that take loss scaling (``fused=True``) then change nothing.
    Others see gradients of zero.

    Args:
        flag: 0 or 1, a number.
        optimizer: The optimizer.
        parameters: Its parameters.
    """
    if getattr(optimizer, '_step_supports_amp_scaling', False):
        optimizer.grad_scale, optimizer.found_inf = None, flag
        try:
            yield
        finally:
            del optimizer.grad_scale, optimizer.found_inf
        return
    by_type = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            by_type[parameter.grad.dtype].append(parameter.grad)
    with torch.no_grad():
        for gradients in by_type.values():
            bits = _bits(gradients)
            torch._foreach_mul_(bits, 1 - flag.to(bits[0].dtype))
    yield

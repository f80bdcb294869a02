"""Count the work and the memory of a step while it runs without data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode

from mmtransxnet.benchmark.cost.memory import LiveMemory
from mmtransxnet.benchmark.cost.operators import (
    Operator,
    describe,
    flop_formulas,
    tensors_of,
    waits_for_device,
)


@dataclass
class Cost:
    """What a step costs.

    Attributes:
        operators: The work of all operators, in order.
        syncs: How often the host waits for a value of the device.
        held: Bytes that exist before the step: model and input.
        peak: Largest number of bytes that exist at the same time.
    """

    operators: list[Operator] = field(default_factory=list)
    syncs: int = 0
    held: int = 0
    peak: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of all operators."""
        return sum(op.flops for op in self.operators)

    @property
    def nbytes(self) -> int:
        """Bytes that all operators read and write."""
        return sum(op.nbytes for op in self.operators)

    @property
    def kernels(self) -> int:
        """Kernels launched."""
        return sum(op.kernels for op in self.operators)


class CostCounter(TorchDispatchMode):
    """Count all operators that run within, also in the backward pass.

    Custom operators of Python count as the operators they call. Not for
    inference mode, in which PyTorch replaces some operators.

    Args:
        held: Tensors that exist before: parameters, buffers, the input.
    """

    def __init__(self, *held: Tensor) -> None:
        super().__init__()
        self.memory = LiveMemory()
        for tensor in held:
            self.memory.add(tensor)
        self.cost = Cost(held=self.memory.now)
        self._paused = False

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.cost.peak = self.memory.peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        if self._paused or func.namespace == 'prim':
            return func(*args, **kwargs)
        body = _body(func)
        if body is not None:
            with self, torch.no_grad():
                return body(*args, **kwargs)
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if waits_for_device(func, args):
            self.cost.syncs += 1
            if func.overloadpacket is torch.ops.aten._local_scalar_dense:
                return args[0].is_floating_point() or 1
        out = func(*args, **kwargs)
        operator = describe(func, args, kwargs, out)
        if operator is not None:
            self.cost.operators.append(operator)
        for tensor in tensors_of(out):
            self.memory.add(tensor)
        return out

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what runs within."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False


def _body(func: Any) -> Callable | None:
    """The Python function of a custom operator."""
    definition = OPDEFS.get(func.name())
    return None if definition is None else definition._init_fn


def _is_composite(func: Any) -> bool:
    """Whether an operator only calls others, as seen in custom operators."""
    if func.overloadpacket in flop_formulas:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), 'CompositeImplicitAutograd'
    )

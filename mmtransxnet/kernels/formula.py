"""Methods that state a formula, and the kernels that compute it."""

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

from torch import Tensor


def computed_by(
    kernel: Callable[..., Any],
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorate a method that states the formula of what a kernel computes.

    TorchScript, which compiles source code, sees the formula alone.

    Args:
        kernel: Called with the arguments of the method; returns
            ``NotImplemented`` where the formula is to be computed.
    """

    def decorate(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def compute(self: Any, *inputs: Tensor) -> Tensor:
            result = kernel(self, *inputs)
            if result is NotImplemented:
                return formula(self, *inputs)
            return result

        return in_place_of(formula, compute)

    return decorate


def in_place_of(formula: Any, function: Any) -> Callable[..., Tensor]:
    """Let a function take the place of a method.

    TorchScript reads the source of the method that was wrapped, but looks
    for names where the function was defined. So the function gets the
    globals of the method, and must have all it needs in its closure.
    """
    moved = FunctionType(
        function.__code__,
        formula.__globals__,
        formula.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return wraps(formula)(moved)

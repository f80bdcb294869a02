"""Decorators that connect a formula with the kernel that computes it."""

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

from torch import Tensor
from torch.fx import Proxy


def computed_by(
    kernel: Callable[..., Any],
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorate a method whose body is the formula that a kernel computes.

    TorchScript, which compiles source code, sees only the formula.

    Args:
        kernel: Called with the arguments of the method; returns
            ``NotImplemented`` to fall back to the formula.
    """
    is_traced = _is_traced

    def decorate(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def compute(self: Any, *inputs: Tensor) -> Tensor:
            result = NotImplemented
            if not is_traced(inputs):
                result = kernel(self, *inputs)
            if result is NotImplemented:
                return formula(self, *inputs)
            return result

        method: Any = in_place_of(formula, compute)
        method.kernel = kernel
        return method

    return decorate


def has_kernel(module: Any, kernel: Callable[..., Any]) -> bool:
    """Whether a module's ``forward`` is a formula that a kernel computes.

    Not so for subclasses and instances with a ``forward`` of their own.
    """
    method = getattr(type(module), 'forward', None)
    # Not vars(): torch 2.6 cannot compile it.
    return (
        getattr(method, 'kernel', None) is kernel
        and 'forward' not in module.__dict__
    )


def _is_traced(inputs: tuple[Any, ...]) -> bool:
    """Whether torch.fx traces a method: its inputs have no values."""
    return any(isinstance(x, Proxy) for x in inputs)


def in_place_of(formula: Any, function: Any) -> Callable[..., Tensor]:
    """Return a function that replaces a method.

    TorchScript reads the source of the wrapped method, but resolves names in
    the globals of the function. So the function gets the method's globals and
    must have all it needs in its closure.
    """
    moved = FunctionType(
        function.__code__,
        formula.__globals__,
        formula.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return wraps(formula)(moved)

"""FLOPs of a call, as torch counts them, with formulas for what it lacks."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Sizes = Sequence[int]


def count_flops(work: Callable[[], Any]) -> int:
    """FLOPs of the convolutions, matrix products and attention of a call.

    What is computed again in the backward pass counts again. Compiled models
    cannot be counted.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # Its hooks fail where a module receives parameters in inference mode.
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        work()
    return counter.get_total_flops()


class _NoModules(nullcontext):
    """Stands for the tracker of modules: all is counted as the whole."""

    parents = frozenset({'Global'})

    def __exit__(self, *_: Any) -> None:
        """Nothing to remove; the counter calls it without arguments."""


def _attention(q: Sizes, k: Sizes, *_: Any, **__: Any) -> int:
    """Two products of all queries with all keys."""
    b, heads, num_q, dim = q
    return 2 * 2 * b * heads * num_q * k[2] * dim


def _attention_backward(_: Any, *inputs: Any, **__: Any) -> int:
    """The scores again, and the gradients of both products."""
    return _attention(*inputs) * 5 // 2


def _pointwise(
    _: Any, weight: Sizes, third: Any, *___: Any, out_shape: Sizes, **__: Any
) -> int:
    """A product of all weights at each position of the output.

    Where a map is added to the convolution, it is the second argument and the
    weight the third.
    """
    if isinstance(third, tuple | list | torch.Size) and len(third) == 4:
        weight = third
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


def _convolution_backward(
    grad: Sizes, x: Sizes, weight: Sizes, *rest: Any, **_: Any
) -> int:
    """The products of the forward pass, for each of the gradients."""
    transposed, needed = rest[4], rest[7]
    positions = x if transposed else grad
    products = positions[0] * prod(positions[2:]) * prod(weight)
    return 2 * products * sum(needed[:2])


_aten = torch.ops.aten

FORMULAS = {
    # torch has these for GPUs only.
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _attention_backward
    ),
    # torch's counts a kernel's gradient as if there were no groups.
    _aten.convolution_backward: _convolution_backward,
    torch.ops.mkldnn._convolution_pointwise: _pointwise,
}
"""Formulas by operator, of the shapes of its arguments."""

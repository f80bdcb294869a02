"""What an operator of PyTorch reads, writes and computes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

from mmtransxnet.benchmark.speed.flops import FORMULAS

aten = torch.ops.aten

flop_formulas: dict[Any, Callable] = {
    **flop_registry,
    **{op: shape_wrapper(formula) for op, formula in FORMULAS.items()},
    aten.baddbmm_: flop_registry[aten.baddbmm],
}

# Allocate and compute nothing.
_ALLOCATIONS = {
    aten.empty,
    aten.empty_like,
    aten.empty_permuted,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
}

# Write their first argument without reading it.
_OVERWRITES = {
    aten.bernoulli_,
    aten.copy_,
    aten.fill_,
    aten.normal_,
    aten.uniform_,
    aten.zero_,
}

# The host reads a value, or the size of the output depends on values.
_HOST_READS = {
    aten._local_scalar_dense,
    aten._unique2,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten.unique_dim,
}

# With a boolean index, they look for its true elements first.
_INDEXING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
}


@dataclass(frozen=True)
class Operator:
    """The work of one call of an operator.

    Attributes:
        name: As in ``aten.convolution``.
        flops: Floating-point operations of matrix products, convolutions and
            attention, as PyTorch's FlopCounterMode counts them; all others
            are limited by memory.
        nbytes: Bytes read and written, each tensor once.
        kernels: Kernels launched.
        dtype: Type in which it computes.
        dense: Whether matrix units compute its FLOPs; depthwise convolutions
            do not fill them.
    """

    name: str
    flops: int
    nbytes: int
    kernels: int
    dtype: torch.dtype
    dense: bool


def waits_for_device(func: Any, args: tuple) -> bool:
    """Whether the host must wait for the device within an operator."""
    packet = func.overloadpacket
    if packet in _INDEXING:
        masks = (torch.bool, torch.uint8)
        return any(t.dtype in masks for t in tensors_of(args[1]))
    return packet in _HOST_READS


def describe(
    func: Any, args: tuple, kwargs: dict, out: Any
) -> Operator | None:
    """The work of an operator; None for views and allocations.

    Args:
        func: Overload of the operator.
        args: Its arguments.
        kwargs: Its keyword arguments.
        out: Its result.
    """
    packet = func.overloadpacket
    inputs = tensors_of((args, kwargs))
    mutated = _mutated(func, args, kwargs)
    known = {_storage(t) for t in inputs}
    new = [t for t in tensors_of(out) if _storage(t) not in known]
    if packet in _ALLOCATIONS or not (new or mutated):
        return None
    read = inputs
    if packet in _OVERWRITES:
        read = [t for t in inputs if t is not args[0]]
    nbytes = sum(map(_size, [*read, *mutated, *new]))
    dense, kernels = True, 1
    if packet is aten.convolution:
        dense = not _is_depthwise(args)
        if args[2] is not None and dense:  # the library adds no bias
            kernels, nbytes = 2, nbytes + 2 * _size(out)
    elif packet is aten.constant_pad_nd:  # fill, then copy
        kernels, nbytes = 2, nbytes + _size(out)
    elif packet is aten.convolution_backward:
        dense, kernels = not _is_depthwise(args[1:]), sum(args[-1])
    return Operator(
        name=str(packet),
        flops=_flops(packet, args, kwargs, out),
        nbytes=nbytes,
        kernels=kernels,
        dtype=_compute_dtype([*inputs, *new]),
        dense=dense,
    )


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _flops(packet: Any, args: tuple, kwargs: dict, out: Any) -> int:
    formula = flop_formulas.get(packet)
    return formula(*args, **kwargs, out_val=out) if formula else 0


def _mutated(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """The arguments that an operator writes to."""
    written = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            written += tensors_of(value)
    return written


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; repeated (expanded) ones count once."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.itemsize * math.prod(n for n, stride in pairs if stride)


def _is_depthwise(args: tuple) -> bool:
    """Whether a convolution of ``(x, weight, ...)`` is depthwise."""
    return args[1].size(1) == 1 and args[1].size(0) > 1


def _compute_dtype(tensors: list[Tensor]) -> torch.dtype:
    """Type of the first floating-point tensor."""
    floating = [t.dtype for t in tensors if t.is_floating_point()]
    return floating[0] if floating else torch.float32

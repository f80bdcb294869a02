"""Count a step of a case of the benchmark on tensors without data."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmtransxnet.benchmark.cost.as_on_gpu import as_on_gpu
from mmtransxnet.benchmark.cost.counter import Cost, CostCounter
from mmtransxnet.benchmark.speed.cases import (
    PRECISIONS,
    Case,
    Shape,
    train,
)
from mmtransxnet.kernels import attention_blocks, bicubic


def count_case(
    case: Case, shape: Shape, mode: str, on_gpu: bool = True
) -> Cost:
    """Count a forward pass or a training step.

    Args:
        case: Model and form; not compiled, and no detector.
        shape: The batch.
        mode: ``'inference'`` or ``'training'``.
        on_gpu: Whether to compute as on a GPU, else as on this CPU.
    """
    model = case.build(shape, mode, 'cpu')
    dtype = PRECISIONS[case.precision]
    layout = torch.contiguous_format
    if 'channels_last' in case.forms:
        layout = torch.channels_last

    def step(image: Tensor) -> None:
        precision = autocast(dtype)
        if mode == 'training':
            train(model, image, precision)
            return
        with torch.no_grad(), precision:
            model(image)

    with FakeTensorMode():
        remove_data(model)
        image = torch.empty(shape.batch, 3, shape.height, shape.width)
        image = image.to(memory_format=layout)
        return count(step, model, image, on_gpu)


def autocast(dtype: torch.dtype) -> Any:
    """Autocast of the fake tensors; none for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast('cpu', dtype)


def count(
    step: Callable[[Tensor], Any],
    model: nn.Module,
    image: Tensor,
    on_gpu: bool = True,
    others: Sequence[Tensor] = (),
) -> Cost:
    """Count a step; call it within a FakeTensorMode.

    Args:
        step: Called with the image.
        model: The model, without data.
        image: Images ``(B, 3, H, W)`` without data.
        on_gpu: As in :func:`count_case`.
        others: Other tensors that exist before the step.
    """
    counter = CostCounter(
        *model.parameters(), *model.buffers(), image, *others
    )
    with ExitStack() as stack:
        if on_gpu:
            stack.enter_context(as_on_gpu())
        stack.enter_context(_cached_taps(counter))
        stack.enter_context(counter)
        step(image)
    return counter.cost


def remove_data(model: nn.Module) -> None:
    """Replace parameters and buffers by fake CPU tensors.

    Call it within a FakeTensorMode. The model may be on any device.
    """
    fakes: dict[Tensor, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if tensor not in fakes:
            fakes[tensor] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype
            )
        return fakes[tensor]

    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(
                    fake(p), requires_grad=p.requires_grad
                )
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = fake(b)


@contextmanager
def _cached_taps(counter: CostCounter) -> Iterator[None]:
    """Do not count what later steps find in the cache of the attention."""
    taps: dict[Any, bicubic.Taps] = {}

    class Cache:
        def get(self, num_in: int, num_out: int, like: Tensor) -> bicubic.Taps:
            key = num_in, num_out, like.dtype
            if key not in taps:
                with counter.paused():
                    taps[key] = bicubic.make_taps(num_in, num_out, like)
            return taps[key]

    with patch.object(attention_blocks, 'taps_cache', Cache()):
        yield

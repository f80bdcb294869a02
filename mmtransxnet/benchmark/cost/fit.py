"""Which batch of a recipe fits on a GPU."""

from collections.abc import Callable

from mmtransxnet.benchmark.cost.counter import Cost
from mmtransxnet.benchmark.cost.gpus import Gpu

CONTEXT = 0.8 * 2**30
"""Assumed bytes of the CUDA context and of the libraries' handles."""

RESERVE = 0.1
"""Assumed share of the memory that is lost to fragmentation."""


def available(gpu: Gpu) -> float:
    """Bytes that the tensors of a step may take."""
    return (1 - RESERVE) * gpu.memory * 2**30 - CONTEXT


def largest_batch(count: Callable[[int], Cost], gpu: Gpu) -> int:
    """Largest number of images that fits; 0 if none does.

    The memory grows by the same amount for each image, once there are so many
    that the weights' gradients are not most of it.

    Args:
        count: Counts the step for a number of images.
        gpu: The GPU.
    """
    few, more = 16, 32
    smaller, larger = count(few).peak, count(more).peak
    each = (larger - smaller) / (more - few)
    return max(0, few + int((available(gpu) - smaller) // each))

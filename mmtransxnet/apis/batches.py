"""Batches whose results do not depend on what is in them."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

T = TypeVar('T')


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last one may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def equal_batches(
    items: Sequence[T], key: Callable[[T], Hashable], most: int
) -> Iterator[list[T]]:
    """Yield batches of items with equal keys, ``most`` at the most."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    for group in groups.values():
        yield from chunks(group, most)


def batch_key(data: Any, task: str, divisor: int) -> tuple[int, ...]:
    """Prepared pictures with equal keys may be predicted together.

    In such a batch none is padded more than alone.

    Args:
        data: What the test pipeline returned.
        task: As :class:`~mmtransxnet.apis.results.ModelInfo`.
        divisor: To whose multiple the model pads height and width.
    """
    height, width = data['inputs'].shape[-2:]
    if task == 'detection':
        return -(-height // divisor), -(-width // divisor)
    if task == 'segmentation':
        # The size of the label map.
        return height, width, *data['data_samples'].ori_shape[:2]
    return height, width

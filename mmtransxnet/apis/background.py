"""Work ahead of its use, in threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_MOST_THREADS = 8

T = TypeVar('T')
R = TypeVar('R')


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count() -> int:
    """Number of threads that load."""
    return min(available_cpus(), _MOST_THREADS)


def loading_threads() -> ThreadPoolExecutor:
    """Threads for decoding and resizing, which run outside of Python's lock.

    In each of them, torch uses one thread: they share the CPUs with the
    model.
    """
    return ThreadPoolExecutor(
        thread_count(),
        'load',
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def ahead(
    pool: ThreadPoolExecutor,
    items: Iterable[T],
    work: Callable[[T], R],
    depth: int,
) -> Generator[R, None, None]:
    """Yield ``work(item)`` in order, computed ahead of the use.

    Args:
        pool: Where to work.
        items: Read lazily, in the calling thread.
        work: The function.
        depth: Maximum number of results that wait or are being computed.

    Raises:
        Exception: As ``work``, at the item's turn.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()

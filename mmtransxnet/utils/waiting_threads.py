"""Whether OpenMP's threads spin or sleep while they wait for each other.

Spinning is faster on an idle machine, and much slower where other processes
need the cores (docs/performance.md has the figures; a number of spins in
between loses on both). OpenMP reads the choice from the environment when
torch is loaded, so this module does not import torch.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLICY = 'OMP_WAIT_POLICY'

_SETTINGS_OF_THE_USER = (POLICY, 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')

# How long to look at the load, in seconds; the kernel counts in 1/100 s.
_DURATION = 0.1

# Threads spin if there are at most so many for each idle core: what runs in
# the background of any machine takes some percent.
_THREADS_PER_IDLE_CORE = 1.25


@contextmanager
def sleeping_if_busy() -> Iterator[None]:
    """Let threads of the libraries loaded in this context sleep, if busy.

    The environment is as before at the end, so that other programs which
    this one starts choose for themselves. Variables set by the user win.
    """
    if not _sleep():
        yield
        return
    os.environ[POLICY] = 'PASSIVE'
    try:
        yield
    finally:
        os.environ.pop(POLICY, None)


def _sleep() -> bool:
    """Whether there are more threads than cores for them."""
    too_late = 'torch' in sys.modules
    if too_late or any(name in os.environ for name in _SETTINGS_OF_THE_USER):
        return False
    if not hasattr(os, 'sched_getaffinity'):  # not Linux
        return False
    cores = os.sched_getaffinity(0)
    threads = _number('OMP_NUM_THREADS', len(cores))
    if threads == 1:
        return False
    processes = _number('LOCAL_WORLD_SIZE', 1)
    # What the other processes of a run do now is only their start.
    idle = len(cores) if processes > 1 else _idle_cores(cores)
    return threads * processes > _THREADS_PER_IDLE_CORE * idle


def _number(variable: str, default: int) -> int:
    """The number in a variable, without those of nested levels."""
    first = os.environ.get(variable, '').partition(',')[0].strip()
    return int(first) if first.isdecimal() and int(first) else default


def _idle_cores(cores: set[int]) -> float:
    """How many cores had nothing to do, on average over a short time."""
    try:
        before = _times(cores)
        time.sleep(_DURATION)
        idle, total = (
            after - start
            for after, start in zip(_times(cores), before, strict=True)
        )
    except OSError:  # no /proc
        return len(cores)
    return len(cores) * idle / total if total else len(cores)


def _times(cores: set[int]) -> tuple[int, int]:
    """Idle and total time of some cores since the start of the system."""
    names = {f'cpu{core}' for core in cores}
    idle = total = 0
    for line in Path('/proc/stat').read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            # user, nice, system, idle, iowait, irq, softirq, steal; time of
            # guests, which follows, is included in user.
            times = [int(field) for field in fields[:8]]
            idle += times[3] + times[4]
            total += sum(times)
    return idle, total

"""Peak memory of one run, measured in a process of its own.

python -m mmtransxnet.benchmark.speed.memory CASE SHAPE MODE DEVICE THREADS
"""

import ctypes
import gc
import platform
import subprocess
import sys
from pathlib import Path

import torch

from mmtransxnet.benchmark.speed.cases import Case, Shape


def resident(what: str) -> float:
    """Memory of this process in MiB: now (VmRSS) or at most (VmHWM).

    The maximum of getrusage begins with that of the process that started
    this one.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f'{what}:'))
    return int(line.split()[1]) / 2**10


def return_what_is_freed() -> None:
    """Let glibc give back what is free, from now on at once if it is large.

    By default it keeps some, and how much depends on the order of requests:
    the same step took from 1.2 to 2.6 GiB, of which 1.0 held values.
    """
    if platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 2**22)
        libc.malloc_trim(0)


def peak_memory(case: Case, shape: Shape, mode: str, device: str) -> float:
    """Peak of one run in MiB, over what model and image take at rest."""
    return_what_is_freed()
    work = case.work(shape, mode, device)
    if device == 'cuda':
        before = torch.cuda.memory_allocated() / 2**20
        work()
        return torch.cuda.max_memory_allocated() / 2**20 - before
    gc.collect()
    return_what_is_freed()  # what building the model left
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
    before = resident('VmRSS')
    work()
    return resident('VmHWM') - before


def peak_memory_elsewhere(
    case: Case, shape: Shape, mode: str, device: str, threads: int
) -> float:
    """:func:`peak_memory` in a fresh process.

    Raises:
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
    """
    words = [str(case), str(shape), mode, device, str(threads)]
    result = subprocess.run(
        [sys.executable, '-m', __name__, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(result.stdout.splitlines()[-1])


def main() -> None:
    """Measure what the command line names; print MiB."""
    case, shape, mode, device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    what = Case.parse(case), Shape.parse(shape), mode, device
    sys.stdout.write(f'{peak_memory(*what)}\n')


if __name__ == '__main__':
    main()

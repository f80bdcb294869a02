"""Peak memory of one run, measured in a separate process.

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


def resident(entry: str) -> float:
    """Memory of this process in MiB: now (VmRSS) or at most (VmHWM).

    The maximum of getrusage includes that of the parent process.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f'{entry}:'))
    return int(line.split()[1]) / 2**10


def return_what_is_freed() -> None:
    """Return free memory to the system, and large blocks immediately.

    By default glibc keeps some, depending on the order of allocations: the
    same step took from 1.2 to 2.6 GiB, of which 1.0 GiB held values.
    """
    if platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 2**22)
        libc.malloc_trim(0)


def peak_memory(case: Case, shape: Shape, mode: str, device: str) -> float:
    """Peak of one run in MiB, above the memory of model and image."""
    return_what_is_freed()
    work = case.work(shape, mode, device)
    if device == 'cuda':
        before = torch.cuda.memory_allocated() / 2**20
        work()
        return torch.cuda.max_memory_allocated() / 2**20 - before
    gc.collect()
    return_what_is_freed()  # left from building the model
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

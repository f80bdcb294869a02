"""The machine of a measurement: hardware, settings, matrix products."""

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.benchmark.speed.cases import PRECISIONS, allow_tf32

# Variables that change the allocator or how threads wait.
_PREFIXES = ('MALLOC_', 'OMP_', 'GOMP_', 'KMP_')
_NAMES = ('LD_PRELOAD', 'GLIBC_TUNABLES', 'THP_MEM_ALLOC_ENABLE')

# Instructions that decide how fast products are; processors of the same
# name differ in them.
_INSTRUCTIONS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')

# Rows and columns of the matrices whose product is timed.
_SIDE = dict(cpu=2048, cuda=8192)
_PRODUCTS = 5


def describe(
    device: str, threads: int, keep_memory: bool = False
) -> dict[str, Any]:
    """Hardware, software and settings of the measurement.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: Threads on the CPU.
        keep_memory: Whether freed memory is kept.
    """
    flags: list[str] = []
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        name = _processor('model name') or 'unknown'
        name += f', {torch.backends.cpu.get_cpu_capability()}'
        flags = _processor('flags').split()
    return dict(
        device=name,
        instructions=[name for name in _INSTRUCTIONS if name in flags],
        threads=threads,
        cores=os.cpu_count(),
        torch=torch.__version__,
        python=platform.python_version(),
        libc=' '.join(platform.libc_ver()),
        environment=_environment()
        | (dict(keep_freed_memory='1') if keep_memory else {}),
    )


def _processor(entry: str) -> str:
    """An entry of the first processor in /proc/cpuinfo, or nothing."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return ''
    found = re.search(rf'^{entry}\s*: (.*)$', text, re.MULTILINE)
    return found[1].strip() if found else ''


def _environment() -> dict[str, str]:
    """Variables of the allocator and of threads, without folders."""
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if value and (name.startswith(_PREFIXES) or name in _NAMES)
    }
    if 'LD_PRELOAD' in found:
        libraries = re.split('[ :]+', found['LD_PRELOAD'])
        found['LD_PRELOAD'] = ' '.join(Path(lib).name for lib in libraries)
    return found


def matmul_peak(precision: str, device: str) -> float:
    """FLOP/s of a large matrix product, the best of a few.

    With the threads of the process.

    Args:
        precision: A name in ``PRECISIONS``.
        device: ``cpu`` or ``cuda``.
    """
    allow_tf32(precision == 'tf32')
    side = _SIDE[device]
    matrices = torch.randn(3, side, side, device=device)
    a, b, out = matrices.to(PRECISIONS[precision])
    torch.mm(a, b, out=out)
    best = min(_seconds(a, b, out) for _ in range(_PRODUCTS))
    return 2 * side**3 / best


def _seconds(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> float:
    synchronize(a.device.type)
    start = time.perf_counter()
    torch.mm(a, b, out=out)
    synchronize(a.device.type)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait until the device has done its work; CPUs do it in the call."""
    if device == 'cuda':
        torch.cuda.synchronize()

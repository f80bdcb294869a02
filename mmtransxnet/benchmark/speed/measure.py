"""Time, page faults and memory of cases that take turns.

Each case has a process of its own. In a process that they share, the blocks
that other models free make glibc keep memory that it would give back
otherwise: the folded network at 8 x 224 x 224 had no page faults beside
ConvNeXt-T and 28600 a call by itself, at 0.30 and 0.36 s.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.benchmark.speed.cases import TOP1, Case, Shape
from mmtransxnet.benchmark.speed.flops import count_flops
from mmtransxnet.benchmark.speed.machine import synchronize
from mmtransxnet.benchmark.speed.memory import peak_memory_elsewhere
from mmtransxnet.utils.allocator import keep_freed_memory
from mmtransxnet.utils.errors import UserError

Result = dict[str, Any]
Work = Callable[[], Any]
Progress = Callable[[Sequence, str], Iterable]


@dataclass(frozen=True)
class Call:
    """What a call took, in all threads of its process.

    Attributes:
        seconds: Wall time.
        page_faults: Minor page faults: pages that the system handed out.
        user_seconds: CPU time outside the system, waiting threads included.
        system_seconds: CPU time in the system.
    """

    seconds: float
    page_faults: int
    user_seconds: float
    system_seconds: float


@dataclass(frozen=True)
class Setting:
    """What all cases of a table have in common.

    Attributes:
        shape: Batch of images.
        mode: ``inference`` or ``training``.
        device: ``cpu`` or ``cuda``.
        threads: Threads on the CPU.
        rounds: Turns of each case.
        memory: Whether peak memory is measured.
        keep_memory: Whether freed memory is kept, see
            :func:`~mmtransxnet.utils.allocator.keep_freed_memory`; not while
            peak memory is measured.
        peaks: FLOP/s of a matrix product by precision.
        graphs: Folder of exported graphs, see :meth:`Case.work`.
    """

    shape: Shape
    mode: str
    device: str
    threads: int
    rounds: int
    memory: bool
    keep_memory: bool
    peaks: dict[str, float]
    graphs: Path | None = None

    def __str__(self) -> str:
        return f'{self.mode} {self.shape}'

    def work_of(self, case: Case) -> Work:
        """The function to measure."""
        return case.work(self.shape, self.mode, self.device, self.graphs)


def measure(
    cases: Iterable[Case], setting: Setting, progress: Progress
) -> list[Result]:
    """Measure the cases that exist in a mode.

    Args:
        cases: Models with forms; ratios refer to the first.
        setting: What they have in common.
        progress: Wraps a loop to show its progress under a title.

    Returns:
        A result for each of them; none if no case exists in the mode.

    Raises:
        UserError: The process of a case was killed.
    """
    cases = [case for case in cases if case.does(setting.mode)]
    if not cases:
        return []
    memory: list[float | None] = [None] * len(cases)
    if setting.memory:
        steps = progress(cases, f'memory {setting}')
        memory = [_memory(case, setting) for case in steps]
    with ExitStack() as stack:
        pools = [stack.enter_context(_new_process()) for _ in cases]
        pairs = list(zip(cases, pools, strict=True))
        steps = progress(pairs, f'warm-up {setting}')
        flops = [_ask(pool, _prepare, case, setting) for case, pool in steps]
        turns = progress(range(setting.rounds), f'{setting}')
        rounds = [
            [_ask(pool, _measure_call, case, setting) for case, pool in pairs]
            for _ in turns
        ]
    # From rounds of cases to cases with rounds.
    calls = list(zip(*rounds, strict=True))
    return [
        _result(case, setting, mine, calls[0])
        | _rates(case, setting, mine, count)
        | dict(
            peak_mib=peak,
            memory_ratio=peak / memory[0] if peak and memory[0] else None,
        )
        for case, mine, count, peak in zip(
            cases, calls, flops, memory, strict=True
        )
    ]


def _new_process() -> ProcessPoolExecutor:
    """A process with all imported and nothing computed, so a fresh heap."""
    context = get_context('forkserver')
    context.set_forkserver_preload(['__main__', __name__])
    return ProcessPoolExecutor(1, mp_context=context)


def _ask(
    pool: ProcessPoolExecutor,
    task: Callable[[Case, Setting], Any],
    case: Case,
    setting: Setting,
) -> Any:
    """What a function returns in a case's process."""
    try:
        return pool.submit(task, case, setting).result()
    except BrokenProcessPool:
        raise UserError(
            f'{case} {setting}: its process was killed; is there enough '
            'memory for all cases?'
        ) from None


# Of a case's process: the function it calls each turn.
_process: dict[str, Work] = {}


def _prepare(case: Case, setting: Setting) -> int:
    """Build the case and call it once; return its FLOPs."""
    if setting.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    work = _process['work'] = setting.work_of(case)
    eager = case.eager()
    if eager == case:
        return count_flops(work)
    work()
    return count_flops(setting.work_of(eager))


def _measure_call(case: Case, setting: Setting) -> Call:
    """Take a turn."""
    import resource  # POSIX only

    work = _process['work']
    if setting.device == 'cuda':
        work()  # with the memory that the last turn has released
    synchronize(setting.device)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work()
    synchronize(setting.device)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    if setting.device == 'cuda':
        torch.cuda.empty_cache()
    return Call(
        seconds,
        after.ru_minflt - before.ru_minflt,
        after.ru_utime - before.ru_utime,
        after.ru_stime - before.ru_stime,
    )


def _memory(case: Case, setting: Setting) -> float | None:
    """Peak memory in MiB; None where the case fails, which is reported."""
    try:
        return peak_memory_elsewhere(
            case, setting.shape, setting.mode, setting.device, setting.threads
        )
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f'{case} {setting}: {error.stderr[-2000:]}\n')
        return None


def _result(
    case: Case,
    setting: Setting,
    calls: Sequence[Call],
    first: Sequence[Call],
) -> Result:
    """The case and its times."""
    seconds = [call.seconds for call in calls]
    median = statistics.median(seconds)
    return dict(
        case=str(case),
        model=case.model,
        shape=str(setting.shape),
        megapixels=setting.shape.megapixels,
        mode=setting.mode,
        seconds=seconds,
        median=median,
        images_per_second=setting.shape.batch / median,
        speedup=statistics.median(
            other.seconds / mine.seconds
            for other, mine in zip(first, calls, strict=True)
        ),
        top1=TOP1.get(case.model),
    )


def _rates(
    case: Case, setting: Setting, calls: Sequence[Call], flops: int
) -> Result:
    """How well the machine is used.

    ``peak_share`` is the share of the FLOP/s of a large matrix product,
    ``system_share`` that of the CPU time spent in the system.
    """
    median = statistics.median(call.seconds for call in calls)
    system = sum(call.system_seconds for call in calls)
    total = system + sum(call.user_seconds for call in calls)
    return dict(
        flops=flops,
        peak_share=flops / median / setting.peaks[case.precision],
        page_faults=statistics.median(call.page_faults for call in calls),
        system_share=system / total if total else 0.0,
    )

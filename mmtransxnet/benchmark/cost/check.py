"""Compare what is counted with what a CPU does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from mmtransxnet.benchmark.cost.step import count_case
from mmtransxnet.benchmark.speed.cases import Case, Shape
from mmtransxnet.benchmark.speed.flops import count_flops


@dataclass(frozen=True)
class Comparison:
    """Counted without data, and measured in a run with the same settings.

    Attributes:
        flops: FLOPs, counted; measured by PyTorch's FlopCounterMode.
        nbytes: Peak memory above model and images, counted; measured from the
            events of PyTorch's allocator.
    """

    flops: tuple[int, int]
    nbytes: tuple[int, int]


def compare(case: Case, shape: Shape, mode: str) -> Comparison:
    """Count a step with the settings of this CPU, and run it with data."""
    counted = count_case(case, shape, mode, on_gpu=False)
    work = case.work(shape, mode, 'cpu')
    return Comparison(
        (counted.flops, count_flops(work)),
        (counted.peak - counted.held, peak_allocated(work)),
    )


def peak_allocated(work: Callable[[], Any]) -> int:
    """Most bytes that a call has allocated on the CPU at the same time."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as run:
        work()
    events = run.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.nbytes()]
    now = peak = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        now += change
        peak = max(peak, now)
    return peak

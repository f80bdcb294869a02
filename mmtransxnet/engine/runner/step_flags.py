"""Flags of a step that all processes share, exchanged without waiting.

A host that reads a value from a GPU waits until the GPU has finished its
queue, and queues no work meanwhile. So flags stay on the device, where the
step is decided, and the host reads them one step later, when they have
arrived.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import Tensor

LAG = {'cuda': 1}
"""Exchanges after which the host knows, by type of device; otherwise 0."""


@dataclass(frozen=True)
class Outcome:
    """The result of an exchange, on the host.

    Attributes:
        subject: An object that its caller passed.
        loss: The loss of this process.
        bad_loss: Whether the loss of any process is not finite.
        bad_gradients: The same for the gradients.
    """

    subject: Any
    loss: float
    bad_loss: bool
    bad_gradients: bool

    @property
    def bad(self) -> bool:
        """Whether the step must be skipped."""
        return self.bad_loss or self.bad_gradients


class StepFlags:
    """The flags of a run, exchanged once in each iteration.

    Args:
        device: Where the flags are.

    Attributes:
        lag: Number of exchanges after which the host knows the result.
        stop: Whether this process should stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = LAG.get(device.type, 0)
        self.stop = False
        self._all_stop = False
        self._iteration = -1
        self._count = 0
        self._on_gpu = device.type == 'cuda'
        # Host memory that the device writes to asynchronously.
        self._memory = torch.zeros(self.lag + 1, 4, pin_memory=self._on_gpu)
        self._values = self._memory.numpy()
        self._under_way: deque[tuple[int, Any, Any]] = deque()
        self._outcomes: list[Outcome] = []

    def exchange(
        self,
        iteration: int,
        loss: Tensor,
        bad_gradients: Tensor,
        subject: Any = None,
    ) -> Tensor:
        """Combine the flags of all processes.

        Args:
            iteration: Number of the iteration.
            loss: The loss, ``()``.
            bad_gradients: Whether gradients are not finite, ``()``.
            subject: For :attr:`Outcome.subject`; None for no outcome.

        Returns:
            Whether the step is bad in any process: 0 or 1, ``()``, on the
            device.
        """
        loss = loss.detach().float().reshape(())
        # Filled on the device: a copy from the host would synchronise.
        stop = torch.full((), float(self.stop), device=self.device)
        flags = torch.stack(
            [(~loss.isfinite()).float(), bad_gradients.float(), stop]
        )
        if get_world_size() > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        self._iteration = iteration
        self._send(torch.cat([loss.view(1), flags]), subject)
        self._read_all_but(self.lag)
        return flags[:2].amax()

    def finish(self) -> None:
        """Read the results of all exchanges, waiting for the device."""
        self._read_all_but(0)

    def outcomes(self) -> list[Outcome]:
        """Outcomes that the host has received since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def is_stopping(self, iteration: int) -> bool:
        """Whether any process should stop; equal in all processes.

        Args:
            iteration: Number of the iteration; flags are exchanged now if they
                were not yet.
        """
        if get_world_size() == 1:
            return self.stop
        if self._iteration != iteration:
            nothing = torch.zeros((), device=self.device)
            self.exchange(iteration, nothing, nothing)
        return self._all_stop

    def _send(self, row: Tensor, subject: Any) -> None:
        """Queue a copy to the host behind the device's pending work."""
        place = self._count % len(self._memory)
        self._count += 1
        self._memory[place].copy_(row, non_blocking=self._on_gpu)
        arrival = torch.cuda.Event() if self._on_gpu else None
        if arrival is not None:
            arrival.record()
        self._under_way.append((place, arrival, subject))

    def _read_all_but(self, count: int) -> None:
        while len(self._under_way) > count:
            place, arrival, subject = self._under_way.popleft()
            if arrival is not None:  # usually completed one step later
                arrival.synchronize()
            loss, *flags = map(float, self._values[place])
            bad_loss, bad_gradients, stop = (flag > 0 for flag in flags)
            self._all_stop |= stop
            if subject is not None:
                self._outcomes.append(
                    Outcome(subject, loss, bad_loss, bad_gradients)
                )


_flags: WeakKeyDictionary[Any, StepFlags] = WeakKeyDictionary()


def flags_of(runner: Runner) -> StepFlags:
    """The flags of a run, the same for all its hooks."""
    if runner not in _flags:
        parameter = next(runner.model.parameters())
        _flags[runner] = StepFlags(parameter.device)
    return _flags[runner]

"""What all processes must know of a step: one exchange, and nobody waits.

A host that reads a number from a GPU waits until the GPU has done all it was
told to do, and cannot tell it more meanwhile. So flags stay on the device,
where the step is decided, and the host learns of them one step later, when
they have arrived.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from mmengine.runner import Runner
from torch import Tensor

LAG = {'cpu': 0}
"""Steps after which the host knows, by type of device; otherwise one."""


@dataclass(frozen=True)
class Known:
    """What the host knows of a step.

    Attributes:
        loss: The loss of this process.
        bad_loss: Whether the loss of any process is not finite.
        bad_gradients: The same of the gradients.
        stop: Whether any process was told to stop.
    """

    loss: float
    bad_loss: bool
    bad_gradients: bool
    stop: bool

    @property
    def bad(self) -> bool:
        """Whether the step must not be."""
        return self.bad_loss or self.bad_gradients


class StepFlags:
    """The flags of a run, exchanged once in each iteration.

    Args:
        device: Where the flags are.

    Attributes:
        lag: Iterations after which the host knows.
        stop: Whether this process was told to stop.
        known: The newest that the host knows.
        iteration: Number of the iteration that was exchanged last.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = LAG.get(device.type, 1)
        self.stop = False
        self.known: Known | None = None
        self.iteration = -1
        self._slots = [_Slot(device) for _ in range(self.lag + 1)]
        self._sent = 0

    def exchange(
        self, iteration: int, loss: Tensor, bad_gradients: Tensor
    ) -> Tensor:
        """Tell the other processes of this one, and be told of them.

        Args:
            iteration: Number of the iteration.
            loss: The loss, a number.
            bad_gradients: Whether gradients are not finite, a number.

        Returns:
            Whether the step is bad in any process: 0 or 1, a number on the
            device.
        """
        loss = loss.detach().float()
        # Filled by the device: a copy from the host would wait.
        stop = torch.full((), float(self.stop), device=self.device)
        flags = torch.stack(
            [(~loss.isfinite()).float(), bad_gradients.float(), stop]
        )
        if _are_several():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        self.iteration = iteration
        self._slots[self._sent % len(self._slots)].send(flags, loss)
        self._sent += 1
        if self._sent > self.lag:
            # The oldest, which is overwritten next.
            self.known = self._slots[self._sent % len(self._slots)].read()
        return flags[:2].amax()

    def finish(self) -> None:
        """Let the host know of the last step; it waits for the device."""
        if self._sent and self.lag:
            self.known = self._slots[
                (self._sent - 1) % len(self._slots)
            ].read()

    def is_stopping(self, iteration: int) -> bool:
        """Whether any process was told to stop; all hear the same.

        Args:
            iteration: Number of the iteration, for which there is an
                exchange if there was none.
        """
        if not _are_several():
            return self.stop
        if self.iteration != iteration:
            nothing = torch.zeros((), device=self.device)
            self.exchange(iteration, nothing, nothing)
        return self.known is not None and self.known.stop


class _Slot:
    """Memory of the host that a device writes to while the host goes on."""

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == 'cuda'
        self._memory = torch.zeros(4, pin_memory=on_gpu)
        self._values = self._memory.numpy()
        self._arrival: Any = torch.cuda.Event() if on_gpu else None

    def send(self, flags: Tensor, loss: Tensor) -> None:
        """Write, after what the device still has to do."""
        row = torch.cat([loss.view(1), flags])
        self._memory.copy_(row, non_blocking=True)
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> Known:
        """What has been written; a step later it has long arrived."""
        if self._arrival is not None:
            self._arrival.synchronize()
        loss, bad_loss, bad_gradients, stop = map(float, self._values)
        return Known(loss, bad_loss > 0, bad_gradients > 0, stop > 0)


_flags: WeakKeyDictionary[Any, StepFlags] = WeakKeyDictionary()


def flags_of(runner: Runner) -> StepFlags:
    """The flags of a run, the same for all its hooks."""
    if runner not in _flags:
        parameter = next(runner.model.parameters())
        _flags[runner] = StepFlags(parameter.device)
    return _flags[runner]


def _are_several() -> bool:
    """Whether there are other processes."""
    return dist.is_initialized() and dist.get_world_size() > 1

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

LAG = {'cuda': 1}
"""Exchanges after which the host knows, by type of device; otherwise none."""


@dataclass(frozen=True)
class Known:
    """What the host knows of an exchange.

    Attributes:
        of: What it was about, as its caller called it.
        loss: The loss of this process.
        bad_loss: Whether the loss of any process is not finite.
        bad_gradients: The same of the gradients.
        stop: Whether any process was told to stop.
    """

    of: Any
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
        lag: Exchanges after which the host knows.
        stop: Whether this process was told to stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = LAG.get(device.type, 0)
        self.stop = False
        self._all_stop = False
        self._iteration = -1
        self._free = [_Slot(device) for _ in range(self.lag + 1)]
        self._under_way: list[_Slot] = []
        self._news: list[Known] = []

    def exchange(
        self,
        iteration: int,
        loss: Tensor,
        bad_gradients: Tensor,
        of: Any = None,
    ) -> Tensor:
        """Tell the other processes of this one, and be told of them.

        Args:
            iteration: Number of the iteration.
            loss: The loss, one number.
            bad_gradients: Whether gradients are not finite, ``()``.
            of: What this is about, for :attr:`Known.of`.

        Returns:
            Whether the step is bad in any process: 0 or 1, ``()``, on the
            device.
        """
        loss = loss.detach().float().reshape(())
        # Filled by the device: a copy from the host would wait.
        stop = torch.full((), float(self.stop), device=self.device)
        flags = torch.stack(
            [(~loss.isfinite()).float(), bad_gradients.float(), stop]
        )
        if _are_several():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        self._iteration = iteration
        slot = self._free.pop()
        slot.send(flags, loss, of)
        self._under_way.append(slot)
        self._read_all_but(self.lag)
        return flags[:2].amax()

    def finish(self) -> None:
        """Let the host know of all exchanges; it waits for the device."""
        self._read_all_but(0)

    def news(self) -> list[Known]:
        """What the host has come to know since the last call."""
        news, self._news = self._news, []
        return news

    def is_stopping(self, iteration: int) -> bool:
        """Whether any process was told to stop; all hear the same.

        Args:
            iteration: Number of the iteration, for which there is an
                exchange if there was none.
        """
        if not _are_several():
            return self.stop
        if self._iteration != iteration:
            nothing = torch.zeros((), device=self.device)
            self.exchange(iteration, nothing, nothing)
        return self._all_stop

    def _read_all_but(self, count: int) -> None:
        while len(self._under_way) > count:
            slot = self._under_way.pop(0)
            known = slot.read()
            self._free.append(slot)
            self._all_stop |= known.stop
            if known.of is not None:
                self._news.append(known)


class _Slot:
    """Memory of the host that a device writes to while the host goes on."""

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == 'cuda'
        self._memory = torch.zeros(4, pin_memory=on_gpu)
        self._values = self._memory.numpy()
        self._arrival: Any = torch.cuda.Event() if on_gpu else None
        self._of: Any = None

    def send(self, flags: Tensor, loss: Tensor, of: Any) -> None:
        """Write, after what the device still has to do."""
        self._of = of
        row = torch.cat([loss.view(1), flags])
        self._memory.copy_(row, non_blocking=self._arrival is not None)
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> Known:
        """What has been written; a step later it has long arrived."""
        if self._arrival is not None:
            self._arrival.synchronize()
        loss, bad_loss, bad_gradients, stop = map(float, self._values)
        of, self._of = self._of, None
        return Known(of, loss, bad_loss > 0, bad_gradients > 0, stop > 0)


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

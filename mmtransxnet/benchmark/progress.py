"""How far a tool is, read from the lines of its log."""

import re
import time
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

_LINE = re.compile(
    r'(?:Iter|Epoch)\((?P<mode>train|val|test)\)'
    r'.*?\[\s*(?P<done>\d+)/(?P<total>\d+)\]'
)
_ETA = re.compile(r'eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)')
_LOSS = re.compile(r'\bloss: (\d+\.\d+)')

# How often a line is printed where there is no terminal, in seconds.
_INTERVAL = 30


class State(NamedTuple):
    """What a line says.

    Attributes:
        done: Done iterations.
        total: Iterations of the loop, of one epoch in training by epochs.
        eta: Seconds until training ends, None if the line has none.
        text: The state in words.
    """

    done: int
    total: int
    eta: float | None
    text: str


def read_state(line: str) -> State | None:
    """Read a line of mmengine's log; None if it is another one."""
    found = _LINE.search(line)
    if not found:
        return None
    done, total = int(found['done']), int(found['total'])
    words = {'train': 'training', 'val': 'validation', 'test': 'evaluation'}
    text = f'{words[found["mode"]]} {done}/{total}'
    loss = _LOSS.search(line)
    if loss:
        text += f', loss {float(loss[1]):.2f}'
    eta = _ETA.search(line)
    seconds = None
    if eta and found['mode'] == 'train':
        days, hours, minutes, rest = (int(part or 0) for part in eta.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
    return State(done, total, seconds, text)


class Display:
    """A bar in a terminal, a line now and then elsewhere.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn('{task.description}'),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task('starts', total=None)

    def __enter__(self) -> 'Display':
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def follow(self, lines: Iterable[str]) -> None:
        """Show the states in lines, until there are no more."""
        for line in lines:
            state = read_state(line)
            if state:
                self._show(state)

    def _show(self, state: State) -> None:
        share = state.done / state.total
        now = time.monotonic()
        if state.eta is not None:
            # The epochs that follow are part of it.
            elapsed = now - self._start
            share = elapsed / max(elapsed + state.eta, 1e-3)
        if self._bar:
            self._bar.update(
                self._task,
                completed=share,
                total=1.0,
                description=state.text,
            )
        elif now - self._last > _INTERVAL:
            self._last = now
            self._console.print(f'  {share:4.0%}  {state.text}')

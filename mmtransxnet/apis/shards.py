"""Results of several processes: a file for each, which resumes and merges.

A shard file ``FILE.RANK-of-WORLD.jsonl`` has a line that describes the run,
then a line for each picture or frame, written at once. Whatever the number of
processes, the shard files of a run together say what is done.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from errno import ENOSPC
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtransxnet.apis.inputs import Source
from mmtransxnet.apis.records import (
    LINES,
    Entry,
    numbered,
    to_line,
    write_json,
    write_lines,
    writing,
)
from mmtransxnet.apis.results import ModelInfo
from mmtransxnet.utils.errors import UserError

_HEADER = 'run'
"""Key of the first line."""

_BLOCK = 2**16


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of the names and values of a model's state, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        data = value.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Plan:
    """What is left to do; the same in all processes.

    Attributes:
        sources: The sources that are not done, in order.
        starts: First frame to predict of videos that are done in part, by
            their index in ``sources``.
    """

    sources: list[Source]
    starts: dict[int, int]

    def share(self, rank: int, world: int) -> 'Plan':
        """The part of a process."""
        mine = range(rank, len(self.sources), world)
        starts = {
            position: self.starts[index]
            for position, index in enumerate(mine)
            if index in self.starts
        }
        return Plan([self.sources[index] for index in mine], starts)


@dataclass(slots=True)
class _Progress:
    """What the shard files have of a source.

    Attributes:
        lines: File and position of the result of each frame; a picture is
            frame 0.
        failure: File and position of the error of the whole source.
        done: Whether it is predicted to its end.
    """

    lines: dict[int, tuple[int, int]] = field(default_factory=dict)
    failure: tuple[int, int] | None = None
    done: bool = False

    def add(self, entry: Entry, place: tuple[int, int]) -> None:
        """Note a line."""
        if 'error' in entry and 'frame' not in entry:
            self.failure = place
            return
        self.lines[entry.get('frame', 0)] = place
        self.done |= entry.get('last', True)

    @property
    def frames(self) -> int:
        """Number of frames that are done, from the first on."""
        return next(n for n in count() if n not in self.lines)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Files and positions of its results, in order."""
        if not self.lines and self.failure:
            return [self.failure]
        return [place for _, place in sorted(self.lines.items())]


class Shards:
    """The shard files of a run.

    Args:
        path: The file of the merged results.
        run: What the results depend on, plain data; a restarted run must
            have the same.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        self._run = json.loads(json.dumps(run))

    def plan(self, sources: Sequence[Source]) -> Plan:
        """Compare the sources with what the shard files have.

        A source that failed is tried again.

        Raises:
            UserError: A shard file is of another run or damaged.
        """
        found = self._progress(self._files())
        left: list[Source] = []
        starts = {}
        for source in sources:
            progress = found.get(str(source.origin))
            if progress and progress.done:
                continue
            if progress and progress.frames:
                starts[len(left)] = progress.frames
            left.append(source)
        return Plan(left, starts)

    def open(self, rank: int, world: int) -> 'Shard':
        """Open the file of a process, to add to it."""
        name = f'{self._path.name}.{rank}-of-{world}{LINES}'
        return Shard(self._path.with_name(name), self._run)

    def merge(self, sources: Sequence[Source], info: ModelInfo) -> None:
        """Write the results of all shard files into one file, in order.

        Raises:
            UserError: A shard file is damaged, or the file cannot be written.
        """
        files = self._files()
        found = self._progress(files)
        # Files that were deleted since come last.
        order = dict.fromkeys(str(source.origin) for source in sources)
        order.update(dict.fromkeys(found))
        places = [
            place
            for name in order
            if name in found
            for place in found[name].places
        ]

        def entries() -> Iterator[Entry]:
            number = 0
            for entry in _read(files, places):
                entry.pop('last', None)
                if 'error' not in entry:
                    entry = numbered(entry, number)
                    number += 1
                yield entry

        if self._path.suffix == LINES:
            write_lines(self._path, entries())
        else:
            write_json(self._path, info, entries)

    def _files(self) -> list[Path]:
        pattern = re.escape(self._path.name) + r'\.\d+-of-\d+\.jsonl'
        folder = self._path.parent
        if not folder.is_dir():
            return []
        return sorted(
            path
            for path in folder.iterdir()
            if re.fullmatch(pattern, path.name)
        )

    def _progress(self, files: Sequence[Path]) -> dict[str, _Progress]:
        found: dict[str, _Progress] = {}
        for number, path in enumerate(files):
            for position, entry in _lines(path):
                if not position:
                    self._check(path, entry)
                    continue
                progress = found.setdefault(entry['file_name'], _Progress())
                progress.add(entry, (number, position))
        return found

    def _check(self, path: Path, entry: Entry) -> None:
        stored = entry[_HEADER]
        different = [
            name
            for name in {**self._run, **stored}
            if stored.get(name) != self._run.get(name)
        ]
        if different:
            raise UserError(
                f'{path} is of another run: {", ".join(different)} differ. '
                'Name another file with --json, or delete '
                f'{self._path.name}.*-of-*{LINES} to start anew'
            )


class Shard:
    """The file of a process; a process that is killed leaves whole lines.

    Args:
        path: The file; continued if it exists.
        run: Its first line.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('ab', buffering=0)
            end = _whole_lines(path)
            self._file.truncate(end)
        if not end:
            self._write({_HEADER: run})

    def add(self, entry: Entry, last: bool = True) -> None:
        """Write a result.

        Args:
            entry: The result.
            last: Whether it is the last one of its source.

        Raises:
            UserError: It cannot be written.
        """
        self._write(entry if last else {**entry, 'last': False})

    def _write(self, entry: Entry) -> None:
        line = to_line(entry)
        with writing(self._path):
            # Without a buffer, so that a process that is killed leaves whole
            # lines.
            written = self._file.write(line)
            if written != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(path: Path) -> int:
    """The end of the last whole line, in bytes."""
    with path.open('rb') as file:
        position = file.seek(0, os.SEEK_END)
        while position:
            start = max(0, position - _BLOCK)
            file.seek(start)
            newline = file.read(position - start).rfind(b'\n')
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0


def _lines(path: Path) -> Iterator[tuple[int, Entry]]:
    """Positions and entries of a file without a line that is not whole.

    Raises:
        UserError: A line is damaged.
    """
    position = 0
    with path.open('rb') as file:
        for line in file:
            if not line.endswith(b'\n'):
                return
            try:
                entry = json.loads(line)
                entry['file_name' if position else _HEADER]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f'{path} is damaged at byte {position}: delete it, and '
                    'what it had is predicted again'
                ) from error
            yield position, entry
            position += len(line)


def _read(
    files: Sequence[Path], places: Sequence[tuple[int, int]]
) -> Iterator[Entry]:
    """Read lines at places (file, position)."""
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open('rb')) for path in files]
        for number, position in places:
            opened[number].seek(position)
            yield json.loads(opened[number].readline())

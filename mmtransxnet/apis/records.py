"""Results in files: one JSON, or a JSON for each line."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmtransxnet.apis.results import ModelInfo
from mmtransxnet.utils.atomic_write import replacing
from mmtransxnet.utils.errors import UserError

Entry = dict[str, Any]

LINES = '.jsonl'
"""Suffix of files with one JSON for each line."""


def check_suffix(path: Path) -> None:
    """Check that the suffix of a file says which form it has.

    Raises:
        UserError: It does not.
    """
    if path.suffix not in ('.json', LINES):
        raise UserError(
            f'--json {path}: expected a name that ends in .json (one file, '
            f'written at the end) or {LINES} (one line for each picture or '
            'frame, as they come)'
        )


def to_line(entry: Entry) -> bytes:
    """An entry as a line.

    Raises:
        ValueError: It has a number that is not finite.
    """
    return json.dumps(entry, allow_nan=False).encode() + b'\n'


def numbered(entry: Entry, number: int) -> Entry:
    """Give an entry and its results another number."""
    for result in entry['results']:
        result['image_id'] = number
    return {**entry, 'id': number}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system into one that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'--json {path} cannot be written ({error.strerror or error}): '
            'free some space or fix the folder, then run again'
        ) from error


class LinesFile:
    """Writes an entry as a line as soon as it is added.

    Args:
        path: The file; its folders are created.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('wb')

    def add(self, entry: Entry) -> None:
        """Write an entry.

        Raises:
            UserError: It cannot be written.
        """
        line = to_line(entry)
        with writing(self._path):
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonFile:
    """Writes one JSON at the end, atomically.

    Until then, the entries are in a temporary file and not in memory.

    Args:
        path: The file; its folders are created.
        info: The model.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path, info: ModelInfo) -> None:
        self._path, self._info = path, info
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a name: nothing is left if the process is killed.
            self._file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def add(self, entry: Entry) -> None:
        """Store an entry.

        Raises:
            UserError: It cannot be written.
        """
        line = to_line(entry)
        with writing(self._path):
            self._file.write(line)

    def close(self) -> None:
        """Write the JSON."""
        with self._file:
            write_json(self._path, self._info, self._entries)

    def _entries(self) -> Iterator[Entry]:
        self._file.seek(0)
        return map(json.loads, self._file)


def open_file(path: Path, info: ModelInfo) -> LinesFile | JsonFile:
    """Open a file of results, of the form that its suffix says."""
    return LinesFile(path) if path.suffix == LINES else JsonFile(path, info)


def write_json(
    path: Path, info: ModelInfo, entries: Callable[[], Iterable[Entry]]
) -> None:
    """Write one JSON, atomically, with an entry in memory.

    Its form is that of predict.py of exported models.

    Args:
        path: The file.
        info: The model.
        entries: Returns all of them, each time from the first.

    Raises:
        UserError: It cannot be written.
    """

    def images() -> Iterator[Entry]:
        for entry in entries():
            if 'error' not in entry:
                del entry['results']
                yield entry

    def results() -> Iterator[Entry]:
        for entry in entries():
            yield from entry.get('results', ())

    def failed() -> Iterator[Entry]:
        for entry in entries():
            if 'error' in entry:
                yield entry

    head = json.dumps({'task': info.task, 'classes': info.classes})
    with replacing(path, 'run again') as file:
        file.write(head[:-1].encode())
        for name, values in (
            ('images', images()),
            ('results', results()),
            ('failed', failed()),
        ):
            file.write(f', "{name}": ['.encode())
            for index, value in enumerate(values):
                file.write(b', ' if index else b'')
                file.write(json.dumps(value, allow_nan=False).encode())
            file.write(b']')
        file.write(b'}')


def write_lines(path: Path, entries: Iterable[Entry]) -> None:
    """Write a JSON for each line, atomically.

    Raises:
        UserError: It cannot be written.
    """
    with replacing(path, 'run again') as file:
        file.writelines(map(to_line, entries))

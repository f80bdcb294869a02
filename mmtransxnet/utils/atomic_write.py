"""Files that are whole or not there, whenever the machine stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmtransxnet.utils.errors import UserError

TEMPORARY = '.unfinished'
"""Suffix of a file that is being written."""


@contextmanager
def atomic_write(
    path: str | Path, then: str = 'start again'
) -> Iterator[Path]:
    """Replace a file by a new one that is safe on the disk, or not at all.

    The content goes to a temporary file in the same folder, which then takes
    the name of the file, a step that has happened or not.

    Args:
        path: The file; folders on the way are made.
        then: What to do once there is room, for the message.

    Yields:
        The temporary file, to be written in the ``with`` block.

    Raises:
        UserError: The disk is full, the folder is read-only, or something
            else is wrong with it. What was there before is still there.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        # Windows opens no folders, and some network file systems, which
        # flush new names by themselves, refuse this.
        with suppress(OSError):
            _flush(path.parent)
    except Exception as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was '
            f'saved before is still there. Make room or mend the folder, '
            f'then {then}'
        ) from error


def write_safely(path: str | Path, content: bytes) -> None:
    """Write a file of a run by :func:`atomic_write`."""
    with atomic_write(path, 'start again with --resume') as temporary:
        temporary.write_bytes(content)


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Remove what interrupted runs left half-written in a folder.

    Returns:
        The files that are gone.
    """
    orphans = sorted(Path(folder).glob(f'*{TEMPORARY}'))
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return orphans


class CrashSafeBackend(LocalBackend):
    """mmengine's local files, written by :func:`write_safely`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        write_safely(filepath, obj)


register_backend('CrashSafeBackend', CrashSafeBackend)

"""Files that are whole or not there, whenever the machine stops."""

import os
from contextlib import suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmtransxnet.utils.errors import UserError

TEMPORARY = '.unfinished'
"""Suffix of a file that is being written."""


def write_safely(
    path: str | Path, content: bytes, then: str = 'start again with --resume'
) -> None:
    """Replace a file by a new one that is safe on the disk, or not at all.

    The content goes to a temporary file in the same folder, which then takes
    the name of the file, a step that has happened or not.

    Args:
        path: The file; folders on the way are made.
        content: What it is to hold.
        then: What to do once there is room, for the message.

    Raises:
        UserError: The disk is full, the folder is read-only, or something
            else is wrong with it. What was there before is still there.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was '
            f'saved before is still there. Make room or mend the folder, '
            f'then {then}'
        ) from error


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    # Windows opens no folders, and some network file systems, which flush
    # them by themselves, refuse this.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
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

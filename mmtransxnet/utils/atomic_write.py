"""Atomic writing of files that survives crashes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mmengine.fileio import LocalBackend, register_backend

from mmtransxnet.utils.errors import UserError

TEMPORARY = '.unfinished'
"""Suffix of a file that is being written."""


def write_safely(
    path: str | Path, content: bytes, then: str = 'start again with --resume'
) -> None:
    """Replace a file atomically, flushed to disk.

    Args:
        path: The file; its folders are created.
        content: Its new content.
        then: What to do once there is space, for the message.

    Raises:
        UserError: As :func:`replacing`.
    """
    with replacing(path, then) as file:
        file.write(content)


@contextmanager
def replacing(
    path: str | Path, then: str = 'start again'
) -> Iterator[BinaryIO]:
    """Replace a file atomically by what the body writes, flushed to disk.

    The content is written to a temporary file in the same folder, which is
    then renamed; the renaming is atomic. After an error in the body, the
    previous file is unchanged.

    Args:
        path: The file; its folders are created.
        then: What to do once there is space, for the message.

    Yields:
        The temporary file.

    Raises:
        UserError: The file cannot be written, for example because the disk is
            full or the folder is read-only. The previous file is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except Exception as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was '
            f'saved before is still there. Free some space or fix the folder, '
            f'then {then}'
        ) from error


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so a new name in it survives a power cut."""
    # Windows cannot open folders, and some network file systems do not support
    # this, as they flush folders themselves.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Remove partly written files of interrupted runs from a folder.

    Returns:
        The removed files.
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

"""A folder for a run of which nothing is kept."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import MMLogger


@contextlib.contextmanager
def temporary_work_dir() -> Iterator[str]:
    """Give a run a folder that is removed, and close its log.

    mmengine keeps the logger of a run until the process ends. Its next model
    would write to a file that is no longer there.
    """
    # On a file system of a network, a file that is open stays.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            yield folder
        finally:
            _close_logs(Path(folder).resolve())


def _close_logs(folder: Path) -> None:
    """Take the files of a folder from mmengine's loggers."""
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            if (
                isinstance(handler, logging.FileHandler)
                and folder in Path(handler.baseFilename).resolve().parents
            ):
                logger.removeHandler(handler)
                handler.close()

"""Where a new config and its files go, completely or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtransxnet.own_data.write_config import check_path
from mmtransxnet.utils.errors import UserError

_OVERVIEW = 'overview.png'


class Output:
    """A config and the folder beside it.

    Args:
        config: The config, ``FILE.py``; the folder is ``FILE_data``.
        data: The folder of the data.
        overwrite: Whether existing ones are replaced.

    Raises:
        UserError: A config cannot be there, the data is there, or it exists
            and is not to be replaced.
    """

    def __init__(self, config: Path, data: Path, overwrite: bool) -> None:
        check_path(config)
        self.config = config.resolve()
        self.folder = self.config.with_name(f'{config.stem}_data')
        self.overview = self.folder / _OVERVIEW
        inside = self.config.parent.is_relative_to(data.resolve())
        if inside or data.resolve().is_relative_to(self.folder):
            raise UserError(
                f'--out {config}: choose a folder outside of {data}, so that '
                'the data stays as it is'
            )
        existing = [p for p in (self.config, self.folder) if p.exists()]
        if existing and not overwrite:
            raise UserError(
                f'{existing[0]} exists; choose another --out, or replace it '
                'with --overwrite'
            )
        if self.folder.exists() and not self.overview.is_file():
            raise UserError(
                f'{self.folder} was not written by this tool (it has no '
                f'{_OVERVIEW}); choose another --out'
            )

    @contextmanager
    def complete_or_removed(self) -> Iterator[None]:
        """Make the folder; after an error, all is as it was before.

        Raises:
            UserError: The folder cannot be written to.
        """
        first_missing = _first_missing(self.folder.parent)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            moved = [_move_aside(p) for p in (self.config, self.folder)]
            self.folder.mkdir()
        except OSError as error:
            raise UserError(
                f'--out {self.config}: cannot write there '
                f'({error.strerror or error}); choose another place'
            ) from error
        try:
            yield
        except BaseException:
            for path, before in zip(
                (self.config, self.folder), moved, strict=True
            ):
                _remove(path)
                if before is not None:
                    before.rename(path)
            if first_missing is not None:
                _remove(first_missing)
            raise
        for before in filter(None, moved):
            _remove(before)


def _first_missing(folder: Path) -> Path | None:
    """The outermost folder of a path that does not exist."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    return missing[-1] if missing else None


def _move_aside(path: Path) -> Path | None:
    """Rename what exists at a path, None if nothing does."""
    if not path.exists():
        return None
    before = path.with_name(f'{path.name}.before')
    _remove(before)
    return path.rename(before)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""The files of a folder, and how annotations name them."""

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
from mmtransxnet.utils.errors import UserError

SPLIT_NAMES = dict(
    train=('train', 'training', 'trn'),
    val=('val', 'valid', 'validation', 'dev'),
    test=('test', 'testing', 'tst'),
)

_SPLITS = {
    name: split for split, names in SPLIT_NAMES.items() for name in names
}


def split_of(path: PurePosixPath) -> str | None:
    """Return the split that a path names, as ``train2017`` or ``valid``.

    Folders are read from the innermost outwards.
    """
    for part in reversed(path.parts):
        split = _SPLITS.get(re.sub(r'\d+$', '', part.lower()))
        if split:
            return split
    return None


def split_in_name(name: str) -> str | None:
    """Return the split that a word of a file name names."""
    for word in re.split(r'[\W_]+', name.lower()):
        split = _SPLITS.get(re.sub(r'\d+$', '', word))
        if split:
            return split
    return None


class Folder:
    """The files in a folder and its subfolders.

    Links to folders are followed, each folder once.

    Args:
        root: The folder.

    Attributes:
        root: The folder.
        files: All files relative to it, sorted; hidden ones are left out.

    Raises:
        UserError: It is not a folder, or cannot be listed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f'{root} is not a folder: give the one that has your pictures '
                'and their annotations'
            )
        self.files = sorted(_walk(self.root))

    @cached_property
    def pictures(self) -> list[PurePosixPath]:
        """The files with a picture's suffix."""
        return self.with_suffix(*IMAGE_SUFFIXES)

    def with_suffix(self, *suffixes: str) -> list[PurePosixPath]:
        """Return the files with one of the suffixes, in any case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    @cached_property
    def _by_name(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self.pictures, lambda file: file.name)

    @cached_property
    def _by_stem(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self.pictures, lambda file: file.stem)

    @cached_property
    def _by_plain_name(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self.pictures, lambda file: _plain(file.name))

    @cached_property
    def _known(self) -> set[PurePosixPath]:
        return set(self.pictures)

    def find(
        self, name: str, annotation: PurePosixPath
    ) -> PurePosixPath | None:
        """Return the picture that an annotation file names.

        It is searched relative to the annotation file, to the folder, and
        then by its name anywhere, at last with another case or another
        encoding of accents. A path on another machine counts as a name, as
        does one that leads out of the folder.

        Args:
            name: What the annotation file has.
            annotation: The annotation file.

        Returns:
            None if there is no such picture.

        Raises:
            UserError: The name leads out of the folder and no picture has
                it, or it fits several pictures.
        """
        path = PurePosixPath(name.replace('\\', '/'))
        if not path.name or '\0' in name:
            return None
        if not path.is_absolute() and ':' not in path.parts[0]:
            for start in (annotation.parent, PurePosixPath()):
                candidate = PurePosixPath(os.path.normpath(start / path))
                if candidate in self._known:
                    return candidate
        found = self._by_name.get(path.name) or (
            self._by_plain_name.get(_plain(path.name), [])
            if path.suffix.lower() in IMAGE_SUFFIXES
            else self._by_stem.get(path.name, [])
        )
        if not found:
            self._require_inside(annotation.parent / path, annotation)
        return self._nearest(found, path, annotation)

    def with_stem(self, annotation: PurePosixPath) -> PurePosixPath | None:
        """Return the picture with the same name, apart from the suffix.

        Raises:
            UserError: It fits several pictures.
        """
        found = self._with_stem(annotation)
        return self._nearest(found, annotation, annotation)

    def has_stem(self, annotation: PurePosixPath) -> bool:
        """Whether there is one picture with the same name."""
        return len(self._with_stem(annotation)) == 1

    def _with_stem(self, annotation: PurePosixPath) -> list[PurePosixPath]:
        found = self._by_stem.get(annotation.stem, [])
        beside = [file for file in found if file.parent == annotation.parent]
        folders = set(annotation.parts[:-1])
        return beside or _closest(found, folders)

    def _require_inside(
        self, path: PurePosixPath, annotation: PurePosixPath
    ) -> None:
        """Raise an error if a path leads out of the folder."""
        if PurePosixPath(os.path.normpath(path)).parts[0] == '..':
            raise UserError(
                f'{self.root / annotation} names a picture outside of '
                f'{self.root}: give the folder that has both the pictures '
                'and their annotations'
            )

    def _nearest(
        self,
        found: list[PurePosixPath],
        path: PurePosixPath,
        annotation: PurePosixPath,
    ) -> PurePosixPath | None:
        """The only candidate, or the only one of the same split or folder."""
        if len(found) < 2:
            return found[0] if found else None
        ending = [file for file in found if _ends_with(file, path)]
        found = ending or found
        split = split_of(annotation) or split_in_name(annotation.stem)
        if len(found) > 1 and split:
            found = [file for file in found if split_of(file) == split]
        found = _closest(found, {*annotation.parts[:-1], *path.parts[:-1]})
        if len(found) == 1:
            return found[0]
        raise UserError(
            f'{self.root / annotation} names {path.name}, which fits several '
            'pictures in different folders: write their folders into the '
            'annotations, or give the pictures different names'
        )


def _grouped(files, key) -> dict[str, list[PurePosixPath]]:
    groups: dict[str, list[PurePosixPath]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return groups


def _plain(name: str) -> str:
    """A name without differences that other systems make."""
    return unicodedata.normalize('NFC', name).casefold()


def _ends_with(file: PurePosixPath, path: PurePosixPath) -> bool:
    return file.parts[-len(path.parts) :] == path.parts


def _closest(
    found: list[PurePosixPath], folders: set[str]
) -> list[PurePosixPath]:
    """Those that lie in most of some folders, as in ``north/images``."""
    common = [len(folders.intersection(file.parts[:-1])) for file in found]
    return [
        file
        for file, count in zip(found, common, strict=True)
        if count == max(common)
    ]


def _walk(root: Path) -> Iterator[PurePosixPath]:
    """Files below a folder; links in circles are followed once.

    A link to a folder around the data is left out: it would lead to all that
    lies beside the data, of ``/`` to the whole disk.
    """
    seen: set[str] = set()
    inside = os.path.realpath(root)
    for at, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith('.')
            and name != '__MACOSX'
            and not _leads_out(os.path.join(at, name), inside)
        )
        inner = PurePosixPath(Path(at).relative_to(root).as_posix())
        for name in names:
            if not name.startswith('.') and os.path.isfile(
                os.path.join(at, name)
            ):
                yield inner / name


def _leads_out(path: str, inside: str) -> bool:
    """Whether a link leads to a folder that another folder lies in."""
    if not os.path.islink(path):
        return False
    around = os.path.join(os.path.realpath(path), '')
    return inside.startswith(around)

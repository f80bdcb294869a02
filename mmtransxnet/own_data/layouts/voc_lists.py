"""Lists of names that divide Pascal VOC's pictures."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
from mmtransxnet.own_data.folder import SPLIT_NAMES, Folder
from mmtransxnet.own_data.parsing import read_text
from mmtransxnet.utils.errors import UserError

_IMAGE_SETS = 'imagesets'
_OTHER_TASKS = {'segmentation', 'layout', 'action'}
_BOTH = 'trainval'
"""Name of VOC's list of training and validation pictures."""

_SPLITS = {
    name: split for split, names in SPLIT_NAMES.items() for name in names
}


class Lists:
    """The splits that lists of names give.

    These are the lists in ``ImageSets``, or others with the name of a split
    if most of their lines are names of XML files. A line is a name, with or
    without folders and suffix.

    Args:
        folder: The files.
        annotations: The XML files.

    Attributes:
        official: Whether they are in ``ImageSets``.
        in_main: Whether they are in ``ImageSets/Main``, as in VOCdevkit.

    Raises:
        UserError: A name is in the lists of two splits.
    """

    def __init__(
        self, folder: Folder, annotations: Iterable[PurePosixPath]
    ) -> None:
        files = [
            file
            for file in folder.with_suffix('.txt')
            if file.stem.lower() in (_BOTH, *_SPLITS)
            and not _OTHER_TASKS & set(_lower(file.parts[:-1]))
        ]
        official = [f for f in files if _IMAGE_SETS in _lower(f.parts[:-1])]
        self.official = bool(official)
        self.in_main = any('main' in _lower(f.parts[:-1]) for f in official)
        self._splits = _read(folder, official or files)
        self._names = _by_ending(self._splits)
        self._used: set[str] = set()
        known = {self._name_of(file) for file in annotations} - {None}
        if not official and 2 * len(known) <= len(self._splits):
            self._splits, self._names = {}, {}

    def __bool__(self) -> bool:
        return bool(self._splits)

    @property
    def unused(self) -> list[str]:
        """Names that no file asked for."""
        return [name for name in self._splits if name not in self._used]

    def split_of(self, file: PurePosixPath) -> str | None:
        """The split of an XML file, None if it is in no list."""
        name = self._name_of(file)
        if name is None:
            return None
        self._used.add(name)
        return self._splits[name]

    def _name_of(self, file: PurePosixPath) -> str | None:
        """The name that has most of a file's folders in common."""
        for ending in _endings(file.with_suffix('')):
            name = self._names.get(ending)
            if name is not None:
                return name
        return None


def _lower(parts: Iterable[str]) -> list[str]:
    return [part.lower() for part in parts]


def _read(folder: Folder, files: list[PurePosixPath]) -> dict[str, str]:
    """The split of each name."""
    splits: dict[str, str] = {}
    for file in files:
        split = _SPLITS.get(file.stem.lower())
        if split is None:
            continue
        for name in _names_in(folder, file):
            if splits.setdefault(name, split) != split:
                raise UserError(
                    f'{folder.root / file} names {name}, as does the list for '
                    f'{splits[name]}: name each picture in one list'
                )
    # Where one of train and val is missing, it is the rest of both.
    given = set(splits.values())
    rest = 'val' if 'train' in given and 'val' not in given else 'train'
    for file in files:
        if file.stem.lower() == _BOTH and {'train', 'val'} - given:
            for name in _names_in(folder, file):
                splits.setdefault(name, rest)
    return splits


def _names_in(folder: Folder, file: PurePosixPath) -> list[str]:
    lines = read_text(folder.root / file).splitlines()
    return [_plain(line.strip()) for line in lines if line.strip()]


def _plain(line: str) -> str:
    """A name without the suffix of a picture or an XML file."""
    path = PurePosixPath(line.replace('\\', '/'))
    known = path.suffix.lower() in (*IMAGE_SUFFIXES, '.xml')
    return str(path.with_suffix('') if known else path)


def _by_ending(names: Iterable[str]) -> dict[str, str | None]:
    """Names by their last folders; None where several end alike."""
    found: dict[str, str | None] = {}
    for name in names:
        for ending in _endings(PurePosixPath(name)):
            same = found.setdefault(ending, name) == name
            found[ending] = name if same else None
    return {**found, **{name: name for name in names}}


def _endings(path: PurePosixPath) -> list[str]:
    """A path, then without its first folder, and so on."""
    return ['/'.join(path.parts[i:]) for i in range(len(path.parts))]

"""What several layouts need."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from mmtransxnet.own_data.collection import Picture
from mmtransxnet.own_data.folder import Folder
from mmtransxnet.own_data.parsing import class_name, read_text
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

_CLASS_FILES = (
    *('classes.txt', 'labels.txt', 'obj.names', 'class_names.txt'),
    *('labelmap.txt', '_darknet.labels', 'predefined_classes.txt'),
)


def has_texts(path: Path, *texts: str) -> bool:
    """Whether a file has all the texts; False if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(text.encode() in content for text in texts)


def one_split_each(
    folder: Folder, splits: Mapping[PurePosixPath, str | None]
) -> dict[PurePosixPath, str | None]:
    """Return the splits of annotation files, of which each has one.

    Raises:
        UserError: There are several files, and one names no split, or two name
            the same.
    """
    named = list(splits.values())
    if len(named) > 1 and (None in named or len(set(named)) < len(named)):
        raise UserError(
            f'{folder.root} has several annotation files whose splits are '
            f'unclear ({first_few([str(file) for file in splits])}): name '
            'them train, val and test (one each), or keep only one'
        )
    return dict(splits)


def class_file(folder: Folder) -> tuple[PurePosixPath, list[str]] | None:
    """Return the text file of class names in a folder, and the names.

    Raises:
        UserError: A name is not valid, or is there twice.
    """
    found = [file for file in folder.files if file.name in _CLASS_FILES]
    if not found:
        return None
    file = min(found, key=lambda file: (len(file.parts), str(file)))
    # CVAT's labelmap.txt has the colour behind the name.
    lines = [
        re.sub(r':\d+,\d+,\d+.*', '', line).strip()
        for line in read_text(folder.root / file).splitlines()
        if line.strip() and not line.startswith('#')
    ]
    return file, checked_names(folder.root / file, lines)


def checked_names(path: Path, values: Iterable[object]) -> list[str]:
    """Return names of classes.

    Raises:
        UserError: There is none, one is not valid, or is there twice.
    """
    names = [class_name(value) for value in values]
    known = [name for name in names if name is not None]
    if not known or len(known) < len(names):
        raise UserError(
            f'{path} has a class name that is empty or not a printable text: '
            'write one name for each class'
        )
    twice = [name for name, count in Counter(known).items() if count > 1]
    if twice:
        raise UserError(
            f'{path} has the class {twice[0]} twice: give each class a name '
            'of its own'
        )
    return known


def sorted_classes(pictures: Iterable[Picture]) -> list[str]:
    """Return the names of classes that objects have, sorted.

    Numbers are in the order of their values.
    """
    names = {o.label for p in pictures for o in p.objects}
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def require_same_classes(root: Path, pictures: Iterable[Picture]) -> None:
    """Check that training pictures show every class of the other splits.

    Raises:
        UserError: Validation or test has a class that training does not have.
    """
    found: dict[str | None, set[str]] = {}
    for picture in pictures:
        labels = found.setdefault(picture.split, set())
        labels.update(o.label for o in picture.objects)
        if picture.label is not None:
            labels.add(picture.label)
    train = found.get('train')
    for split in ('val', 'test'):
        more = sorted(found.get(split, set()) - (train or set()))
        if train is not None and more:
            raise UserError(
                f'{root} has classes in {split} that train does not have '
                f'({first_few(more)}): use the same names in all splits, or '
                'remove the split folders to have a new one made'
            )

"""YOLO's text files: boxes, or polygons as segments."""

import os
from pathlib import PurePosixPath
from typing import Any

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Canvas, Gatherer
from mmtransxnet.own_data.layouts.common import checked_names, class_file
from mmtransxnet.own_data.parsing import number, read_text, read_yaml
from mmtransxnet.utils.errors import UserError

KIND = 'YOLO'

_PICTURES = 'images'
_LABELS = 'labels'
_BOX = 5
_LEAST_POLYGON = 7
_RECOGNISED_BY = 3
"""Number of text files that are looked into."""

_MAX_CLASSES = 10_000
_NOT_FOUND = 'picture in a list that cannot be found'

_Described = tuple[PurePosixPath, dict[Any, Any]]


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    pairs = _pairs(folder)
    for label in list(pairs)[:_RECOGNISED_BY]:
        try:
            lines = read_text(folder.root / label).splitlines()
        except UserError:
            continue
        if any(map(_is_row, lines)):
            return (
                f'{label} has rows of a class number and numbers from 0 to 1 '
                f'for {pairs[label]}'
            )
    return None


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    described = _description(folder)
    names = _names(folder, described)
    splits = _described_splits(folder, gatherer, described)
    labels = {picture: label for label, picture in _pairs(folder).items()}
    highest = -1
    for picture in folder.pictures:
        canvas = gatherer.open(picture)
        if canvas is None:
            continue
        if picture in labels:
            text = read_text(folder.root / labels[picture])
            for line in text.splitlines():
                row = line.split()
                if row:
                    highest = max(
                        highest, _add_row(gatherer, canvas, row, names)
                    )
        canvas.keep(splits.get(picture) or split_of(picture))
    for label in _without_picture(folder, labels.values()):
        gatherer.drop(NO_PICTURE, label)
    gatherer.reasons.append(
        'Pictures without a text file, or with an empty one, are kept as '
        'background, as YOLO does.'
    )
    if names is None:
        names = [str(i) for i in range(highest + 1)]
        gatherer.reasons.append(
            'Classes are named by their numbers: there is no data.yaml and '
            'no classes.txt.'
        )
    return gatherer.collection(names, task)


def _is_row(line: str) -> bool:
    """Whether a line is one of YOLO's: a class number and shares."""
    cells = line.split()
    if len(cells) != _BOX and (len(cells) < _LEAST_POLYGON):
        return False
    return cells[0].isdecimal() and all(
        -0.5 <= number(cell) <= 1.5 for cell in cells[1:]
    )


def _pairs(folder: Folder) -> dict[PurePosixPath, PurePosixPath]:
    """Text files and the pictures that they are for."""
    files = {
        file.with_suffix('.txt'): file for file in folder.with_suffix('.txt')
    }
    pairs: dict[PurePosixPath, PurePosixPath] = {}
    for picture in folder.pictures:
        for place in _places(picture):
            file = files.get(place)
            if file is not None and file not in pairs:
                pairs[file] = picture
                break
    return pairs


def _places(picture: PurePosixPath) -> list[PurePosixPath]:
    """Where the text file of a picture may be; the first counts."""
    beside = picture.parent / f'{picture.stem}.txt'
    plain = [PurePosixPath(_LABELS) / beside, beside]
    parts = list(beside.parts)
    # The last folder of that name, as YOLO replaces it.
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() == _PICTURES:
            names = (_LABELS, _LABELS.title())
            swapped = [[*parts[:i], name, *parts[i + 1 :]] for name in names]
            return [*(PurePosixPath(*some) for some in swapped), *plain]
    return plain


def _without_picture(folder: Folder, used: Any) -> list[PurePosixPath]:
    """Text files in folders of labels that belong to no picture."""
    known = set(used)
    return [
        file
        for file in folder.with_suffix('.txt')
        if _LABELS in (part.lower() for part in file.parts[:-1])
        and file not in known
        and file.name not in ('classes.txt', 'labels.txt')
    ]


def _add_row(
    gatherer: Gatherer,
    canvas: Canvas,
    row: list[str],
    names: list[str] | None,
) -> int:
    """Add an object; returns its class, -1 if it has none."""
    index = int(row[0]) if row[0].isdecimal() and len(row[0]) < 8 else -1
    if index < 0 or index >= (len(names) if names else _MAX_CLASSES):
        gatherer.drop('object of an unknown class number', ' '.join(row[:5]))
        return -1
    label = names[index] if names else str(index)
    values = [number(cell) for cell in row[1:]]
    sides = canvas.width, canvas.height
    scaled = [value * sides[i % 2] for i, value in enumerate(values)]
    if len(row) == _BOX:
        x, y, width, height = scaled
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        canvas.add_box(label, box)
    elif len(row) >= _LEAST_POLYGON and len(row) % 2:
        canvas.add_polygons(label, [scaled])
    else:
        gatherer.drop(
            'row that is neither a box nor a polygon', ' '.join(row[:8])
        )
        return -1
    return index


def _description(
    folder: Folder,
) -> tuple[PurePosixPath, dict[Any, Any]] | None:
    """The YAML file that describes the data, and its content."""
    for file in sorted(
        folder.with_suffix('.yaml', '.yml'),
        key=lambda file: (len(file.parts), file.stem != 'data', str(file)),
    ):
        content = read_yaml(folder.root / file)
        if isinstance(content, dict) and 'names' in content:
            return file, content
    return None


def _names(folder: Folder, described: _Described | None) -> list[str] | None:
    """The classes by number; None if there is no file of names."""
    if described is None:
        listed = class_file(folder)
        return listed[1] if listed else None
    file, content = described
    if 'kpt_shape' in content:
        raise UserError(
            f'{folder.root / file} describes keypoints (kpt_shape), which are '
            'not read: export boxes or segments'
        )
    names = content['names']
    if isinstance(names, dict):
        names = {str(key): name for key, name in names.items()}
        if set(names) != {str(i) for i in range(len(names))}:
            raise UserError(
                f'{folder.root / file} has class numbers with gaps in "names"'
                ': number them from 0'
            )
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or len(names) > _MAX_CLASSES:
        raise UserError(
            f'{folder.root / file} has "names" that is not a list: write the '
            'classes as [name, name, ...]'
        )
    return checked_names(folder.root / file, names)


def _described_splits(
    folder: Folder,
    gatherer: Gatherer,
    described: _Described | None,
) -> dict[PurePosixPath, str]:
    """The splits of pictures that the YAML file gives."""
    if described is None:
        return _listed_splits(folder, gatherer)
    file, content = described
    splits: dict[PurePosixPath, str] = {}
    for split in ('train', 'val', 'test'):
        # Ultralytics takes both names.
        places = content.get(split) or (
            content.get('valid') if split == 'val' else None
        )
        for place in places if isinstance(places, list) else [places]:
            if not isinstance(place, str) or not place:
                continue
            found = _pictures_at(gatherer, file, content, place)
            if not found:
                gatherer.reasons.append(
                    f'{file} names {place!r} for {split}, which has no '
                    'pictures.'
                )
            if any(splits.get(picture, split) != split for picture in found):
                gatherer.reasons.append(
                    f'{file} names pictures of another split for {split}; '
                    'they stay in the first one.'
                )
            for picture in found:
                splits.setdefault(picture, split)
    return splits


def _pictures_at(
    gatherer: Gatherer,
    file: PurePosixPath,
    content: dict[Any, Any],
    place: str,
) -> list[PurePosixPath]:
    """The pictures in a folder, or in a list, that a YAML file names.

    Exported files often have ``../train/images`` and mean ``train/images``.
    Nothing outside of the folder is read.
    """
    folder = gatherer.folder
    base = content.get('path')
    starts = [file.parent]
    if isinstance(base, str):
        starts.insert(0, file.parent / base)
    parts = PurePosixPath(place).parts
    plain = PurePosixPath(*(p for p in parts if p.strip('./')))
    candidates = [start / place for start in starts]
    for candidate in [*candidates, file.parent / plain, plain]:
        normal = PurePosixPath(os.path.normpath(candidate))
        if normal in folder.files:
            return _listed_pictures(gatherer, normal)
        inside = [p for p in folder.pictures if normal in p.parents]
        if inside:
            return inside
    return []


def _listed_splits(
    folder: Folder, gatherer: Gatherer
) -> dict[PurePosixPath, str]:
    """The splits that Darknet's ``train.txt`` and ``valid.txt`` give.

    Validation is drawn if there is only the first. Lists are not used where
    folders divide the pictures: they may be left over from elsewhere.

    Raises:
        UserError: A picture is in the lists of two splits.
    """
    files = _lists(folder)
    if files and len({split_of(p) for p in folder.pictures} - {None}) > 1:
        gatherer.reasons.append(
            f'Lists such as {next(iter(files))} are not used: the folders '
            'give the splits.'
        )
        return {}
    splits: dict[PurePosixPath, str] = {}
    for file, split in files.items():
        for picture in _listed_pictures(gatherer, file, guessed=True):
            if splits.setdefault(picture, split) != split:
                raise UserError(
                    f'{folder.root / file} names {picture}, as does the list '
                    f'for {splits[picture]}: name each picture in one list'
                )
    return splits


def _lists(folder: Folder) -> dict[PurePosixPath, str]:
    """Text files with the name of a split that have names of pictures."""
    pairs = _pairs(folder)
    lists: dict[PurePosixPath, str] = {}
    for file in folder.with_suffix('.txt'):
        split = split_of(PurePosixPath(file.stem))
        if split is None or file in pairs:
            continue
        lines = read_text(folder.root / file).splitlines()
        paths = [PurePosixPath(line.strip()) for line in lines if line.strip()]
        if all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
            lists[file] = split
    return lists


def _listed_pictures(
    gatherer: Gatherer, file: PurePosixPath, guessed: bool = False
) -> list[PurePosixPath]:
    """The pictures that a text file names, one a line.

    Args:
        gatherer: Counts the names without a picture.
        file: The text file.
        guessed: Whether nothing but its name says that it is a list. A name
            that leads out of the folder, or fits several pictures, is then
            counted and not an error.
    """
    folder = gatherer.folder
    found: list[PurePosixPath] = []
    for line in read_text(folder.root / file).splitlines():
        name = line.strip()
        if not name:
            continue
        example = f'{name} in {file}'
        try:
            picture = folder.find(name, file)
        except UserError as error:
            if not guessed:
                raise
            picture, example = None, str(error)
        if picture is None:
            gatherer.drop(_NOT_FOUND, example)
        else:
            found.append(picture)
    return found

"""A CSV with a box in each row."""

import csv
import io
from collections.abc import Sequence
from pathlib import PurePosixPath

from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_in_name, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Gatherer
from mmtransxnet.own_data.layouts.common import (
    one_split_each,
    require_same_classes,
    sorted_classes,
)
from mmtransxnet.own_data.parsing import class_name, number, read_text
from mmtransxnet.utils.errors import UserError

KIND = 'CSV of boxes'

_COLUMNS = dict(
    image=(
        *('image', 'imagepath', 'imagename', 'imageid', 'filename', 'file'),
        *('path', 'img', 'imgpath', 'picture', 'name'),
    ),
    xmin=('xmin', 'x1', 'left'),
    ymin=('ymin', 'y1', 'top'),
    xmax=('xmax', 'x2', 'right'),
    ymax=('ymax', 'y2', 'bottom'),
    label=('label', 'class', 'classname', 'category', 'labelname'),
)
_OPTIONAL = dict(
    width=('width', 'imagewidth', 'w'), height=('height', 'imageheight', 'h')
)
_EXPECTED = 'image,xmin,ymin,xmax,ymax,label'

_Row = dict[str, str]


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    for file in folder.with_suffix('.csv'):
        if _is_boxes(folder, file):
            return f'{file} has the columns {_EXPECTED}'
    return None


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    files = [f for f in folder.with_suffix('.csv') if _is_boxes(folder, f)]
    splits = one_split_each(
        folder, {file: split_in_name(file.stem) for file in files}
    )
    for file in files:
        _add_file(gatherer, file, splits[file])
    gatherer.drop_unlisted()
    gatherer.reasons.append(
        'Boxes are edges counted from 0. A picture whose row has no box is '
        'kept as background.'
    )
    gatherer.require_pictures()
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(sorted_classes(gatherer.pictures), task)


def _is_boxes(folder: Folder, file: PurePosixPath) -> bool:
    try:
        rows = _rows(folder, file)
    except UserError:
        return False
    return bool(rows) and _positions(rows[0]) is not None


def _rows(folder: Folder, file: PurePosixPath) -> list[list[str]]:
    text = read_text(folder.root / file)
    header = text.partition('\n')[0]
    delimiter = max(',;\t', key=header.count)
    try:
        return list(
            csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
        )
    except csv.Error as error:
        raise UserError(
            f'{folder.root / file} is not a valid CSV ({error}): export it '
            'again'
        ) from None


def _positions(header: Sequence[str]) -> dict[str, int] | None:
    """Columns by what they have; None if one is missing."""
    plain = [
        ''.join(c for c in cell.lower() if c.isalnum()) for cell in header
    ]
    positions = {}
    for name, accepted in {**_COLUMNS, **_OPTIONAL}.items():
        found = [plain.index(word) for word in accepted if word in plain]
        if found:
            positions[name] = found[0]
        elif name in _COLUMNS:
            return None
    return positions


def _add_file(
    gatherer: Gatherer, file: PurePosixPath, split: str | None
) -> None:
    header, *lines = _rows(gatherer.folder, file)
    positions = _positions(header) or {}
    groups: dict[str, list[_Row]] = {}
    for line in lines:
        row = {
            name: line[at].strip() if at < len(line) else ''
            for name, at in positions.items()
        }
        if any(cell.strip() for cell in line):
            groups.setdefault(row['image'], []).append(row)
    for name, rows in groups.items():
        picture = gatherer.folder.find(name, file)
        if picture is None:
            for _ in rows:
                gatherer.drop(NO_PICTURE, name)
            continue
        canvas = gatherer.open(picture, _size_of(rows[0]))
        if canvas is None:
            continue
        for row in rows:
            _add_row(gatherer, canvas, row)
        canvas.keep(split or split_of(picture))


def _size_of(row: _Row) -> tuple[float, float] | None:
    """The size of the picture that is in the columns width and height."""
    width, height = number(row.get('width')), number(row.get('height'))
    return (width, height) if width > 0 and height > 0 else None


def _add_row(gatherer, canvas, row: _Row) -> None:
    cells = [row[side] for side in ('xmin', 'ymin', 'xmax', 'ymax')]
    if not any(cells):
        return
    label = class_name(row['label'])
    if label is None:
        gatherer.drop('box without a class name', f'in {row["image"]}')
        return
    canvas.add_box(label, [number(cell) for cell in cells])

"""A CSV with a box in each row."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
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
    width=('width', 'imagewidth', 'w'),
    height=('height', 'imageheight', 'h'),
    split=('split', 'subset', 'set'),
)
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
_EXPECTED = 'image,xmin,ymin,xmax,ymax,label'

_Row = dict[str, str]


class _Table(NamedTuple):
    """A file of boxes.

    Attributes:
        rows: The cells that are used, by what they have.
        why: Which columns they are from.
        reasons: Choices made, each a sentence.
    """

    rows: list[_Row]
    why: str
    reasons: list[str]


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    for file in folder.with_suffix('.csv'):
        table = _table(folder, file)
        if table is not None:
            return f'{file} {table.why}'
    return None


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    tables = {
        file: table
        for file in folder.with_suffix('.csv')
        if (table := _table(folder, file)) is not None
    }
    splits = one_split_each(
        folder, {file: split_in_name(file.stem) for file in tables}
    )
    for file, table in tables.items():
        gatherer.reasons += [f'{file}: {text}' for text in table.reasons]
        _add_rows(gatherer, file, table.rows, splits[file])
    gatherer.drop_unlisted()
    gatherer.reasons.append(
        'Boxes are edges counted from 0. A picture whose row has no box is '
        'kept as background.'
    )
    gatherer.require_pictures()
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(sorted_classes(gatherer.pictures), task)


def _table(folder: Folder, file: PurePosixPath) -> _Table | None:
    """The boxes of a file; None if it has others, or none."""
    try:
        delimiter, (header, *lines) = _rows(folder, file)
    except (UserError, ValueError):
        return None
    positions = _positions(header)
    reasons = []
    if positions is not None:
        why = f'has the columns {_EXPECTED}'
        reasons = _other_labels(header, positions['label'])
    elif _is_row(header, delimiter):
        positions = {name: i for i, name in enumerate(_COLUMNS)}
        lines = [header, *lines]
        why = f'has no header, and rows of {_EXPECTED}'
    else:
        return None
    rows = [
        _row(line, positions, delimiter)
        for line in lines
        if any(cell.strip() for cell in line)
    ]
    return _Table(rows, why, reasons)


def _row(
    line: Sequence[str], positions: Mapping[str, int], delimiter: str
) -> _Row:
    row = {
        name: line[at].strip() if at < len(line) else ''
        for name, at in positions.items()
    }
    return {**row, **{side: _decimal(row[side], delimiter) for side in _SIDES}}


def _decimal(cell: str, delimiter: str) -> str:
    """A number with a point; some countries write a comma."""
    return cell if delimiter == ',' else cell.replace(',', '.')


def _is_row(cells: Sequence[str], delimiter: str) -> bool:
    """Whether these are a picture, four numbers or none, and a class."""
    if len(cells) != len(_COLUMNS):
        return False
    suffix = PurePosixPath(cells[0].strip().replace('\\', '/')).suffix
    box = [_decimal(cell.strip(), delimiter) for cell in cells[1:5]]
    return suffix.lower() in IMAGE_SUFFIXES and (
        not any(box) or all(math.isfinite(number(cell)) for cell in box)
    )


def _other_labels(header: Sequence[str], used: int) -> list[str]:
    """A sentence if several columns could have the class."""
    others = [
        cell
        for i, cell in enumerate(header)
        if i != used and _plain(cell) in _COLUMNS['label']
    ]
    if not others:
        return []
    return [
        f'the classes are those of the column {header[used]}, not of '
        f'{", ".join(others)}; rename the columns to change that.'
    ]


def _rows(folder: Folder, file: PurePosixPath) -> tuple[str, list[list[str]]]:
    """What separates the cells of a file, and its rows."""
    text = read_text(folder.root / file)
    header = text.partition('\n')[0]
    delimiter = max(',;\t', key=header.count)
    lines = io.StringIO(text, newline='')
    try:
        return delimiter, list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise UserError(
            f'{folder.root / file} is not a valid CSV ({error}): export it '
            'again'
        ) from None


def _positions(header: Sequence[str]) -> dict[str, int] | None:
    """Columns by what they have; None if one is missing."""
    plain = [_plain(cell) for cell in header]
    positions = {}
    for name, accepted in {**_COLUMNS, **_OPTIONAL}.items():
        found = [plain.index(word) for word in accepted if word in plain]
        if found:
            positions[name] = found[0]
        elif name in _COLUMNS:
            return None
    return positions


def _plain(cell: str) -> str:
    return ''.join(c for c in cell.lower() if c.isalnum())


def _add_rows(
    gatherer: Gatherer,
    file: PurePosixPath,
    table: Sequence[_Row],
    split: str | None,
) -> None:
    groups: dict[str, list[_Row]] = {}
    for row in table:
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
        named, *others = dict.fromkeys(
            split_in_name(row.get('split', '')) for row in rows
        )
        for _ in others:
            gatherer.drop(
                'second split of a picture (the first is kept)', name
            )
        canvas.keep(split or named or split_of(picture))


def _size_of(row: _Row) -> tuple[float, float] | None:
    """The size of the picture that is in the columns width and height."""
    width, height = number(row.get('width')), number(row.get('height'))
    return (width, height) if width > 0 and height > 0 else None


def _add_row(gatherer, canvas, row: _Row) -> None:
    cells = [row[side] for side in _SIDES]
    # Some tools write zeros for a picture without objects.
    if not any(cells) or all(number(cell) == 0 for cell in cells):
        return
    label = class_name(row['label'])
    if label is None:
        gatherer.drop('box without a class name', f'in {row["image"]}')
        return
    canvas.add_box(label, [number(cell) for cell in cells])

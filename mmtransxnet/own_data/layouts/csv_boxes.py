"""A CSV with a box in each row."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_in_name, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Canvas, Gatherer
from mmtransxnet.own_data.layouts.common import (
    one_split_each,
    require_same_classes,
    sorted_classes,
)
from mmtransxnet.own_data.parsing import class_name, number, read_text
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

KIND = 'CSV of boxes'

_COLUMNS = dict(
    image=(
        *('image', 'imagepath', 'imagename', 'imageid', 'filename', 'file'),
        *('path', 'img', 'imgpath', 'picture', 'name'),
    ),
    label=(
        *('label', 'class', 'classname', 'category', 'labelname'),
        *('labelid', 'classid', 'categoryid'),
    ),
)
_OPTIONAL = dict(
    width=('width', 'imagewidth', 'imgwidth', 'w'),
    height=('height', 'imageheight', 'imgheight', 'h'),
    split=('split', 'subset', 'set'),
)
_EXPECTED = 'image,xmin,ymin,xmax,ymax,label'

_Box = list[float]
_Row = dict[str, str]


class _Form(NamedTuple):
    """A way to write a box in four columns.

    Attributes:
        title: In words.
        columns: Names of each of the four.
        corners: From their values to left, top, right, bottom.
    """

    title: str
    columns: tuple[tuple[str, ...], ...]
    corners: Callable[[_Box], _Box]


# Where there are several, width and height are those of the picture.
_LENGTHS = (
    ('bboxwidth', 'bboxw', 'boxwidth', 'boxw', 'w', 'width'),
    ('bboxheight', 'bboxh', 'boxheight', 'boxh', 'h', 'height'),
)

_FORMS = (
    _Form(
        'edges',
        (
            ('xmin', 'x1', 'left'),
            ('ymin', 'y1', 'top'),
            ('xmax', 'x2', 'right'),
            ('ymax', 'y2', 'bottom'),
        ),
        lambda v: v,
    ),
    _Form(
        'the left upper corner, width and height',
        (
            ('xmin', 'x1', 'left', 'x', 'bboxx'),
            ('ymin', 'y1', 'top', 'y', 'bboxy'),
            *_LENGTHS,
        ),
        lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]],
    ),
    _Form(
        'the centre, width and height',
        (
            ('xcenter', 'xcentre', 'centerx', 'centrex', 'cx'),
            ('ycenter', 'ycentre', 'centery', 'centrey', 'cy'),
            *_LENGTHS,
        ),
        lambda v: [
            *(v[0] - v[2] / 2, v[1] - v[3] / 2),
            *(v[0] + v[2] / 2, v[1] + v[3] / 2),
        ],
    ),
)
_SIDES = ('0', '1', '2', '3')
"""Keys of a row's cells that have the box."""


class _Table(NamedTuple):
    """A file of boxes.

    Attributes:
        rows: The cells that are used, by what they have.
        form: How boxes are written.
        shares: Whether these are shares of the picture's width and height.
        why: Which columns they are from.
        reasons: Choices made, each a sentence.
    """

    rows: list[_Row]
    form: _Form
    shares: bool
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
    splits = _splits(folder, tables)
    gatherer.reasons += _by_reason(tables)
    for file, table in tables.items():
        _add_rows(gatherer, file, table, splits[file])
    gatherer.drop_unlisted()
    gatherer.reasons.append(
        'Pixels are counted from 0. A picture whose row has no box is kept as '
        'background.'
    )
    gatherer.require_pictures()
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(sorted_classes(gatherer.pictures), task)


def _splits(
    folder: Folder, tables: Mapping[PurePosixPath, _Table]
) -> dict[PurePosixPath, str | None]:
    """The split of each file, None where its rows or pictures decide."""
    if len(tables) == 1:
        return {file: split_in_name(file.stem) for file in tables}
    splits = {
        file: split_in_name(file.stem) or split_of(file) for file in tables
    }
    if any(splits.values()) or _have_common_pictures(folder, tables):
        return one_split_each(folder, splits)
    return splits


def _by_reason(tables: Mapping[PurePosixPath, _Table]) -> list[str]:
    """Each reason once, with the files that it is for."""
    files: dict[str, list[str]] = {}
    for file, table in tables.items():
        for reason in table.reasons:
            files.setdefault(reason, []).append(str(file))
    return [f'{first_few(names)}: {reason}' for reason, names in files.items()]


def _table(folder: Folder, file: PurePosixPath) -> _Table | None:
    """The boxes of a file; None if it has others, or none."""
    try:
        delimiter, (header, *lines) = _rows(folder, file)
    except (UserError, ValueError):
        return None
    found = _positions(header)
    reasons = []
    if found is not None:
        form, positions = found
        why = f'has the columns {",".join(_named(header, positions))}'
        reasons = _other_labels(header, positions['label'])
    elif _is_row(header, delimiter):
        form = _FORMS[0]
        positions = {
            name: i for i, name in enumerate(['image', *_SIDES, 'label'])
        }
        lines = [header, *lines]
        why = f'has no header, and rows of {_EXPECTED}'
    else:
        return None
    rows = [
        _row(line, positions, delimiter)
        for line in lines
        if any(cell.strip() for cell in line)
    ]
    shares = _are_shares(rows)
    unit = 'shares of the width and height' if shares else 'pixels'
    reasons.append(f'boxes are {form.title}, in {unit}.')
    return _Table(rows, form, shares, why, reasons)


def _named(
    header: Sequence[str], positions: Mapping[str, int]
) -> Iterable[str]:
    """The names of the columns that are needed."""
    names = ['image', *_SIDES, 'label']
    return [header[positions[name]].strip() for name in names]


def _are_shares(rows: Iterable[_Row]) -> bool:
    """Whether boxes are from 0 to 1, and not all of these numbers whole."""
    values = [number(row[side]) for row in rows for side in _SIDES]
    known = [value for value in values if math.isfinite(value)]
    return all(-0.01 <= value <= 1.01 for value in known) and any(
        value != int(value) for value in known
    )


def _have_common_pictures(
    folder: Folder, tables: Mapping[PurePosixPath, _Table]
) -> bool:
    """Whether two files name the same picture."""
    pictures = [
        folder.find(name, file)
        for file, table in tables.items()
        for name in {row['image'] for row in table.rows}
    ]
    known = [picture for picture in pictures if picture is not None]
    return len(set(known)) < len(known)


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
    if len(cells) != len(_EXPECTED.split(',')):
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


def _positions(
    header: Sequence[str],
) -> tuple[_Form, dict[str, int]] | None:
    """How boxes are written, and columns; None if one is missing."""
    plain = [_plain(cell) for cell in header]

    def at(accepted: Iterable[str]) -> int | None:
        found = (plain.index(word) for word in accepted if word in plain)
        return next(found, None)

    needed = {name: at(accepted) for name, accepted in _COLUMNS.items()}
    for form in _FORMS:
        box = dict(zip(_SIDES, map(at, form.columns), strict=True))
        # The width of a box is not that of its picture.
        more = {
            name: place
            for name, accepted in _OPTIONAL.items()
            if (place := at(accepted)) not in (None, *box.values())
        }
        positions = {**needed, **box, **more}
        known = {k: v for k, v in positions.items() if v is not None}
        if len(known) == len(positions):
            return form, known
    return None


def _plain(cell: str) -> str:
    return ''.join(c for c in cell.lower() if c.isalnum())


def _add_rows(
    gatherer: Gatherer,
    file: PurePosixPath,
    table: _Table,
    split: str | None,
) -> None:
    groups: dict[str, list[_Row]] = {}
    for row in table.rows:
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
            _add_row(gatherer, canvas, row, table)
        named, *others = dict.fromkeys(
            split_in_name(row.get('split', '')) for row in rows
        )
        for _ in others:
            gatherer.drop(
                'second split of a picture (the first is kept)', name
            )
        canvas.keep(split or named or split_of(picture) or split_of(file))


def _size_of(row: _Row) -> tuple[float, float] | None:
    """The size of the picture that is in the columns width and height."""
    width, height = number(row.get('width')), number(row.get('height'))
    return (width, height) if width > 0 and height > 0 else None


def _add_row(
    gatherer: Gatherer, canvas: Canvas, row: _Row, table: _Table
) -> None:
    values = [number(row[side]) for side in _SIDES]
    # Some tools write zeros for a picture without objects.
    if not any(row[side] for side in _SIDES) or not any(values):
        return
    label = class_name(row['label'])
    if label is None:
        gatherer.drop('box without a class name', f'in {row["image"]}')
        return
    if table.shares:
        sides = canvas.stored_size
        values = [value * sides[i % 2] for i, value in enumerate(values)]
    canvas.add_box(label, table.form.corners(values))

"""Pascal VOC's XML."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Canvas, Gatherer
from mmtransxnet.own_data.layouts.common import (
    class_file,
    has_texts,
    require_same_classes,
    sorted_classes,
)
from mmtransxnet.own_data.layouts.voc_lists import Lists
from mmtransxnet.own_data.parsing import class_name, number, read_xml
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

KIND = 'Pascal VOC'


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    files = _annotation_files(folder)
    if not files:
        return None
    return f'{files[0]} (and {len(files) - 1} more) has <annotation>'


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    roots = {
        file: read_xml(folder.root / file)
        for file in _annotation_files(folder)
    }
    lists = Lists(folder, roots)
    one_based = lists.in_main and not _has_zero(roots.values())
    gatherer.reasons.append(
        'Boxes count pixels from 1 and include the last one, as in VOCdevkit.'
        if one_based
        else 'Boxes are edges counted from 0, as labelling tools write them.'
    )
    difficult = 0
    pictures, renamed = _pictures_of(folder, roots)
    for file, root in roots.items():
        split = lists.split_of(file)
        if not (lists and lists.official):
            split = split or split_of(file)
        picture = pictures[file]
        if picture is None:
            gatherer.drop(NO_PICTURE, file)
            continue
        if lists and split is None:
            gatherer.drop('picture that no list names', file)
            continue
        canvas = gatherer.open(picture, _size_of(root))
        if canvas is None:
            continue
        for row in root.findall('object'):
            difficult += _text(row, 'difficult') == '1'
            _add_object(gatherer, canvas, row, one_based)
        canvas.keep(split)
    if not lists:
        gatherer.drop_unlisted()
    for name in lists.unused:
        gatherer.drop('name in a list without an XML file', name)
    if renamed:
        gatherer.reasons.append(
            f'{len(renamed)} XML files have another <filename> than their '
            f'own name ({first_few(renamed)}): the picture with their own '
            'name was taken.'
        )
    if difficult:
        gatherer.reasons.append(
            f'{difficult} objects marked as difficult are kept.'
        )
    gatherer.reasons.append(
        'Pictures whose XML has no objects are kept as background.'
    )
    gatherer.require_pictures()
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(_classes(gatherer), task)


def _annotation_files(folder: Folder) -> list[PurePosixPath]:
    # CVAT's own XML begins with <annotations>.
    return [
        file
        for file in folder.with_suffix('.xml')
        if has_texts(folder.root / file, '<annotation')
        and not has_texts(folder.root / file, '<annotations')
    ]


def _pictures_of(
    folder: Folder, roots: Mapping[PurePosixPath, Element]
) -> tuple[dict[PurePosixPath, PurePosixPath | None], list[str]]:
    """The picture of each XML file, and files that name another.

    It is the one that an XML file names. Files that were copied keep the old
    <filename>: of several that name the same picture, each has that with its
    own name.
    """
    names = {file: _text(root, 'filename') for file, root in roots.items()}
    named = {
        file: folder.find(name, file) if name else None
        for file, name in names.items()
    }
    count = Counter(named.values())
    pictures: dict[PurePosixPath, PurePosixPath | None] = {}
    renamed = []
    for file, picture in named.items():
        own = None
        if picture is None or (count[picture] > 1 and folder.has_stem(file)):
            own = folder.with_stem(file)
        pictures[file] = own or picture
        if own and names[file] and own != picture:
            renamed.append(f'{file.name}: {names[file]}')
    return pictures, renamed


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or '').strip()


def _size_of(root: Element) -> tuple[float, float] | None:
    width, height = (
        number(_text(root, f'size/{side}')) for side in ('width', 'height')
    )
    return (width, height) if width > 0 and height > 0 else None


def _box_of(row: Element) -> list[float]:
    return [
        number(_text(row, f'bndbox/{side}'))
        for side in ('xmin', 'ymin', 'xmax', 'ymax')
    ]


def _has_zero(roots: Iterable[Element]) -> bool:
    """Whether a box starts at 0, which VOC's own counting does not have."""
    boxes = (_box_of(row) for root in roots for row in root.findall('object'))
    return any(0 in box[:2] for box in boxes)


def _add_object(
    gatherer: Gatherer, canvas: Canvas, row: Element, one_based: bool
) -> None:
    label = class_name(_text(row, 'name'))
    if label is None:
        gatherer.drop('object without a class name', _text(row, 'name'))
        return
    left, top, right, bottom = _box_of(row)
    first = 1 if one_based else 0
    canvas.add_box(label, (left - first, top - first, right, bottom))


def _classes(gatherer: Gatherer) -> list[str]:
    """The names in a text file if there is one, else all that occur."""
    found = sorted_classes(gatherer.pictures)
    listed = class_file(gatherer.folder)
    if listed is None:
        return found
    file, names = listed
    if set(found) <= set(names):
        gatherer.reasons.append(f'Classes are in the order of {file}.')
        return names
    unknown = first_few(sorted(set(found) - set(names)))
    raise UserError(
        f'{gatherer.folder.root / file} does not have the classes {unknown} '
        'of the annotations: add them, or remove the file'
    )

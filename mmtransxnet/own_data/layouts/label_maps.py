"""Pictures and label maps of the same names."""

import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_picture,
)
from mmtransxnet.own_data.collection import Collection, Picture
from mmtransxnet.own_data.folder import Folder, split_of
from mmtransxnet.own_data.gathering import Gatherer
from mmtransxnet.own_data.label_maps import (
    IGNORED,
    MAX_CLASSES,
    is_of_colours,
    packed,
    read_values,
)
from mmtransxnet.own_data.layouts.common import checked_names, class_file
from mmtransxnet.own_data.parsing import read_text
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

KIND = 'label maps'

PICTURES = (
    *('images', 'image', 'imgs', 'img', 'pictures', 'jpegimages', 'photos'),
    *('img_dir', 'leftimg8bit', 'originals', 'inputs'),
)
"""Names of folders of pictures."""

MAPS = (
    *('masks', 'mask', 'labels', 'label', 'annotations', 'label_maps'),
    *('labelmaps', 'segmentationclass', 'ann_dir', 'gt', 'gtfine', 'targets'),
    *('segmentation', 'segmentations', 'ground_truth', 'groundtruth'),
)
"""Names of folders of label maps."""

LOSSLESS = ('.png', '.tif', '.tiff', '.bmp')
_ENDINGS = re.compile(
    r'[_-](mask|masks|label|labels|labelids|labeltrainids|gt|seg|l|'
    r'segmentation|leftimg8bit|img|image)$',
    re.IGNORECASE,
)

_DARK = 32
"""Below this, greys look all alike."""

_MOST_UNNAMED = 200
"""Above this number of classes, they must be named."""

_Colour = tuple[int, int, int]


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    pairs = _pairs(folder)
    if not pairs:
        return None
    picture, label_map = next(iter(pairs.items()))
    return f'{label_map} is a label map of {picture}'


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    pairs = _pairs(folder)
    found: dict[str | None, set[int]] = {}
    colours: bool | None = None
    for picture, label_map in pairs.items():
        canvas = gatherer.open(picture)
        if canvas is None:
            continue
        path = folder.root / label_map
        size = canvas.width, canvas.height
        present = _checked_values(gatherer, path, size)
        if present is None:
            continue
        if colours not in (None, is_of_colours(path)):
            raise UserError(
                f'{path} has {"numbers" if colours else "colours"}, other '
                'label maps do not: use one kind for all'
            )
        colours = is_of_colours(path)
        split = split_of(picture)
        found.setdefault(split, set()).update(present)
        gatherer.pictures.append(
            Picture(
                folder.root / picture,
                canvas.width,
                canvas.height,
                split,
                label_map=path,
            )
        )
    _drop_unpaired(gatherer, pairs)
    gatherer.require_pictures()
    everywhere = set().union(*found.values())
    names, values, palette = _classes(gatherer, everywhere, bool(colours))
    of_classes = range(len(names)) if values is None else values
    known = {packed(value) for value in of_classes}
    gatherer.reasons.extend(_only_in_some(found, known, bool(colours)))
    return gatherer.collection(
        names, task, label_values=values, palette=palette
    )


def _pairs(folder: Folder) -> dict[PurePosixPath, PurePosixPath]:
    """Pictures and their label maps."""
    maps: dict[tuple[str, ...], PurePosixPath] = {}
    pictures: dict[tuple[str, ...], PurePosixPath] = {}
    for file in folder.pictures:
        side, key = _side(file)
        if side == 'map':
            maps.setdefault(key, file)
        else:
            pictures.setdefault(key, file)
    return {
        picture: maps[key] for key, picture in pictures.items() if key in maps
    }


def _side(file: PurePosixPath) -> tuple[str, tuple[str, ...]]:
    """Whether a file is a picture or a map, and what both have in common."""
    folders = [part.lower() for part in file.parts[:-1]]
    is_map = any(part in MAPS for part in folders)
    is_picture = not is_map and any(part in PICTURES for part in folders)
    stem = _ENDINGS.sub('', file.stem)
    if not is_map and not is_picture:
        ending = file.stem[len(stem) + 1 :].lower()
        is_map = bool(ending) and ending not in (
            *('leftimg8bit', 'img', 'image'),
        )
    if is_map and file.suffix.lower() not in LOSSLESS:
        is_map = False
    kept = [part for part in folders if part not in (*PICTURES, *MAPS)]
    return 'map' if is_map else 'picture', (*kept, stem)


def _drop_unpaired(
    gatherer: Gatherer, pairs: dict[PurePosixPath, PurePosixPath]
) -> None:
    used = {*pairs, *pairs.values()}
    for file in gatherer.folder.pictures:
        if file not in used:
            alone = _side(file)[0] == 'map'
            gatherer.drop(
                'label map without picture'
                if alone
                else 'picture without label map',
                file,
            )


def _checked_values(
    gatherer: Gatherer, path: Any, size: tuple[int, int]
) -> list[int] | None:
    """The values in a label map; None if it was dropped."""
    try:
        check_picture(str(path))
        values = read_values(path)
    except (CorruptSampleError, UserError) as error:
        gatherer.drop('label map that cannot be read', error)
        return None
    if values.shape[::-1] != size:
        gatherer.drop(
            'label map of another size than its picture',
            f'{path.name} has {values.shape[1]} x {values.shape[0]} pixels, '
            f'its picture {size[0]} x {size[1]} once it is upright',
        )
        return None
    # mmseg cannot read a side of one pixel.
    if 1 in size:
        gatherer.drop('picture of one pixel in width or height', path.name)
        return None
    unique = np.unique(values)
    if len(unique) > MAX_CLASSES + 1:
        gatherer.drop(
            f'label map with more than {MAX_CLASSES + 1} values (was it '
            'compressed with losses?)',
            path.name,
        )
        return None
    return unique.tolist()


def _only_in_some(
    found: dict[str | None, set[int]], known: set[int], colours: bool
) -> list[str]:
    """A sentence for each split with values that training lacks.

    Args:
        found: The values in the label maps of each split.
        known: The values of classes; others are ignored.
        colours: Whether values are packed colours.
    """
    train = found.get('train')
    if train is None:
        return []
    sentences = []
    for split, values in found.items():
        more = sorted(values & known - train)
        if more:
            shown = [str(_unpacked(v) if colours else v) for v in more]
            sentences.append(
                f'Warning: label maps of {split} have values that those of '
                f'train do not have: {first_few(shown)}.'
            )
    return sentences


def _classes(
    gatherer: Gatherer, found: set[int], colours: bool
) -> tuple[list[str], tuple[Any, ...] | None, tuple[_Colour, ...] | None]:
    """Names, values and colours of the classes."""
    if not colours:
        return _classes_of_numbers(gatherer, found, _palette(gatherer))
    numbers = _numbers_in_colours(gatherer.folder, found)
    if numbers is None:
        return _classes_of_colours(gatherer, found)
    gatherer.reasons.append(
        'Label maps have equal red, green and blue, which are taken for '
        'numbers.'
    )
    names, values, _ = _classes_of_numbers(gatherer, numbers, None)
    greys = range(len(names)) if values is None else values
    if IGNORED in numbers and IGNORED not in greys:
        gatherer.reasons.append(
            'Warning: white (255, 255, 255) in the label maps is ignored, not '
            'a class. If it is a class, name all colours in a labelmap.txt '
            '(lines with name:red,green,blue).'
        )
    return names, tuple((grey, grey, grey) for grey in greys), None


def _numbers_in_colours(folder: Folder, found: set[int]) -> set[int] | None:
    """The numbers in maps of three equal channels; None if these are colours.

    Greys that no one could tell apart are numbers, as are those that a file
    of classes counts, and black and white.
    """
    greys = {value & 255 for value in found}
    if found - {grey * 0x010101 for grey in greys} or _named_colours(folder):
        return None
    listed = class_file(folder)
    most = len(listed[1]) if listed else _DARK
    few = all(grey < most or grey == IGNORED for grey in greys)
    return greys if few or greys == {0, IGNORED} else None


def _classes_of_numbers(
    gatherer: Gatherer, found: set[int], palette: list[int] | None
) -> tuple[list[str], tuple[Any, ...] | None, tuple[_Colour, ...] | None]:
    """The classes of maps with numbers."""
    if found == {0, IGNORED} and palette is None:
        gatherer.reasons.append(
            'Label maps have only 0 and 255, so 255 is a class (a mask in '
            'black and white).'
        )
        return ['background', 'object'], (0, IGNORED), None
    found = found - {IGNORED}
    if not found:
        raise UserError(
            f'{gatherer.folder.root} has only label maps of 255, which is '
            'ignored: give each class another value'
        )
    listed = class_file(gatherer.folder)
    if listed:
        file, names = listed
        unknown = sorted(value for value in found if value >= len(names))
        if unknown:
            raise UserError(
                f'{gatherer.folder.root / file} names {len(names)} classes, '
                'but label maps have the values '
                f'{first_few([str(v) for v in unknown])}: add the names'
            )
        gatherer.reasons.append(
            f'Classes are the lines of {file}, the first for value 0; 255 is '
            'ignored.'
        )
        return names, None, _first_colours(palette, range(len(names)))
    values = sorted(found)
    if len(values) > _MOST_UNNAMED:
        raise UserError(
            f'{gatherer.folder.root} has label maps with {len(values)} values '
            'and no classes.txt: if they were smoothed or compressed with '
            'losses, export them again with one value for each class; else '
            'name the classes in a classes.txt'
        )
    gatherer.reasons.append(
        'Classes are the values of the label maps: there is no classes.txt. '
        '255 is ignored.'
    )
    numbered = values == list(range(len(values)))
    return (
        [str(value) for value in values],
        None if numbered else tuple(values),
        _first_colours(palette, values),
    )


def _palette(gatherer: Gatherer) -> list[int] | None:
    """The palette of the first label map, if it has one."""
    with Image.open(str(gatherer.pictures[0].label_map)) as image:
        return image.getpalette() if image.mode == 'P' else None


def _first_colours(
    palette: list[int] | None, values: Any
) -> tuple[_Colour, ...] | None:
    if palette is None or len(palette) < 3 * (max(values) + 1):
        return None
    colours = [palette[3 * value : 3 * value + 3] for value in values]
    return tuple((red, green, blue) for red, green, blue in colours)


def _unpacked(value: int) -> _Colour:
    return value >> 16, value >> 8 & 255, value & 255


def _classes_of_colours(
    gatherer: Gatherer, found: set[int]
) -> tuple[list[str], tuple[Any, ...], tuple[_Colour, ...]]:
    """The classes of maps in colours, named by a file or the colours."""
    named = _named_colours(gatherer.folder)
    if named is None:
        colours = [_unpacked(value) for value in sorted(found)]
        gatherer.reasons.append(
            'Classes are the colours of the label maps: there is no '
            'labelmap.txt that names them (lines with name:red,green,blue).'
        )
        names = ['#{:02x}{:02x}{:02x}'.format(*c) for c in colours]
    else:
        names, colours = named
        unknown = found - {(r << 16) + (g << 8) + b for r, g, b in colours}
        if unknown:
            shown = first_few([str(_unpacked(v)) for v in sorted(unknown)])
            gatherer.reasons.append(
                f'Colours that no class has are ignored: {shown}.'
            )
    if len(colours) > MAX_CLASSES:
        raise UserError(
            f'{gatherer.folder.root} has label maps of {len(colours)} '
            'colours, more than classes can be: save them without '
            'anti-aliasing, or name the colours in a labelmap.txt (lines '
            'with name:red,green,blue)'
        )
    return names, tuple(colours), tuple(colours)


def _named_colours(
    folder: Folder,
) -> tuple[list[str], list[_Colour]] | None:
    """Names and colours in a ``labelmap.txt`` (``name:red,green,blue``)."""
    for file in folder.with_suffix('.txt', '.csv'):
        rows = []
        if file.stem.lower() not in (
            *('labelmap', 'label_colors', 'class_dict', 'colors', 'classes'),
        ):
            continue
        for line in read_text(folder.root / file).splitlines():
            cells = [c for c in re.split(r'[:,;\s]+', line.strip()) if c]
            numbers = [c for c in cells if c.isdecimal() and len(c) < 4]
            names = [c for c in cells if not c.isdecimal()]
            if len(numbers) == 3 and names and max(map(int, numbers)) < 256:
                rows.append((' '.join(names), tuple(map(int, numbers))))
        if rows:
            names = checked_names(folder.root / file, [n for n, _ in rows])
            return names, [(r, g, b) for _, (r, g, b) in rows]
    return None

"""Writes a collection as files that OpenMMLab's data sets load."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtransxnet.own_data import geometry, label_maps
from mmtransxnet.own_data.brightness import darkness
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Collection,
    Object,
    Picture,
    Prepared,
    Split,
)
from mmtransxnet.own_data.splits import Labels, split
from mmtransxnet.own_data.tiles import cut
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

SPLITS = ('train', 'val', 'test')


def prepare(
    collection: Collection,
    folder: str | Path,
    seed: int = 0,
    tile: int | None = None,
    overlap: float = 0.2,
) -> Prepared:
    """Write annotations for OpenMMLab's data sets.

    Detection gets COCO's json for ``CocoDataset``, classification lists with
    ``path number`` for mmpretrain's ``CustomDataset``, segmentation lists of
    names and label maps for mmseg's ``BaseSegDataset``. The data itself is
    not changed.

    Args:
        collection: What was read.
        folder: Where to write, not within the data. Files of the same names
            are replaced.
        seed: For the split, if the data has none.
        tile: Side in pixels of tiles that all pictures are cut into, None to
            leave them whole.
        overlap: Share of a tile's side in common with the next.

    Returns:
        What was written.

    Raises:
        UserError: The folder is within the data or cannot be written, or the
            data cannot be split or cut.
    """
    folder = _outside(collection.root, Path(folder))
    if tile is not None and collection.task == CLASSIFICATION:
        raise UserError(
            'the class of a picture says nothing about its parts: leave '
            '--tile out in classification'
        )
    collection = replace(
        collection,
        pictures=list(collection.pictures),
        reasons=list(collection.reasons),
        dropped=collection.dropped.copy(),
    )
    labels = _labels_of(collection.pictures)
    if collection.task == SEGMENTATION:
        _write_label_maps(collection, folder)
        labels = _labels_in_maps(collection)
    collection = split(collection, labels, seed, cut=tile is not None)
    collection.reasons += darkness(collection.pictures)
    if tile is None:
        return _write(collection, folder, collection.root, labels)
    tiled = cut(collection, folder / 'tiles', tile, overlap)
    if collection.task == SEGMENTATION:
        labels = _labels_in_maps(tiled)
    else:
        labels = _labels_of(tiled.pictures)
    root = folder / 'tiles' / 'pictures'
    return replace(_write(tiled, folder, root, labels), tile=tile)


def _write(
    collection: Collection, folder: Path, root: Path, labels: Labels
) -> Prepared:
    """Write the lists of pictures, which are within a root."""
    suffix = _common_suffix(collection.pictures)
    label_map_root = None
    if collection.task == SEGMENTATION:
        label_map_root = root.parent / 'label_maps'
        if root == collection.root:
            label_map_root = folder / 'label_maps'
    return Prepared(
        collection=collection,
        folder=folder,
        picture_root=root,
        splits={
            name: _write_split(collection, folder, root, name, labels, suffix)
            for name in SPLITS
            if any(picture.split == name for picture in collection.pictures)
        },
        label_map_root=label_map_root,
        img_suffix=suffix if label_map_root else None,
    )


def _outside(root: Path, folder: Path) -> Path:
    """The folder to write to; an error if it is within the data."""
    if root.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UserError(
            f'{folder} is within the data, which is never changed: give a '
            f'folder outside of {root}'
        )
    return folder


def _labels_of(pictures: Iterable[Picture]) -> Labels:
    """The classes that pictures show, by path."""
    return {
        picture.path: frozenset(
            [o.label for o in picture.objects]
            if picture.label is None
            else [picture.label]
        )
        for picture in pictures
    }


def _common_suffix(pictures: Iterable[Picture]) -> str:
    """The suffix of all pictures, '' if they differ."""
    suffixes = {picture.path.suffix for picture in pictures}
    return suffixes.pop() if len(suffixes) == 1 else ''


def _name(root: Path, path: Path, suffix: str = '') -> str:
    """A picture's path in a list, without the suffix that all have."""
    name = path.relative_to(root).as_posix()
    return name[: -len(suffix)] if suffix else name


def _write_label_maps(collection: Collection, folder: Path) -> None:
    """Write the label maps; the pictures refer to them afterwards."""
    suffix = _common_suffix(collection.pictures)
    for i, picture in enumerate(collection.pictures):
        numbers = label_maps.class_numbers(collection, picture)
        name = _name(collection.root, picture.path, suffix)
        path = folder / 'label_maps' / f'{name}.png'
        write_safely(path, label_maps.png(numbers), 'start again')
        collection.pictures[i] = replace(picture, label_map=path)
    collection.label_values = None


def _labels_in_maps(collection: Collection) -> Labels:
    """The classes that written label maps show, by path of the picture."""
    return {
        picture.path: frozenset(
            collection.classes[number]
            for number in np.unique(label_maps.read_values(picture.label_map))
            if number != label_maps.IGNORED
        )
        for picture in collection.pictures
    }


def _write_split(
    collection: Collection,
    folder: Path,
    root: Path,
    name: str,
    labels: Labels,
    suffix: str,
) -> Split:
    pictures = [p for p in collection.pictures if p.split == name]
    if collection.task == DETECTION:
        path = folder / f'{name}.json'
        content = json.dumps(
            _coco(collection, pictures, root), allow_nan=False
        )
        counts = Counter(o.label for p in pictures for o in p.objects)
    else:
        path = folder / f'{name}.txt'
        lines = _lines(collection, pictures, root, suffix)
        content = ''.join(f'{line}\n' for line in lines)
        counts = Counter(label for p in pictures for label in labels[p.path])
    write_safely(path, content.encode(), 'start again')
    return Split(
        ann_file=path,
        pictures=len(pictures),
        objects={label: counts[label] for label in collection.classes},
    )


def _lines(
    collection: Collection,
    pictures: Iterable[Picture],
    root: Path,
    suffix: str,
) -> list[str]:
    """A line for each picture, with its class in classification."""
    if collection.task != CLASSIFICATION:
        return [_name(root, p.path, suffix) for p in pictures]
    numbers = {label: i for i, label in enumerate(collection.classes)}
    return [f'{_name(root, p.path)} {numbers[str(p.label)]}' for p in pictures]


def _coco(
    collection: Collection, pictures: Iterable[Picture], root: Path
) -> dict[str, Any]:
    numbers = {label: i for i, label in enumerate(collection.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        images.append(
            dict(
                id=len(images) + 1,
                file_name=_name(root, picture.path),
                width=picture.width,
                height=picture.height,
            )
        )
        for item in picture.objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    category_id=numbers[item.label],
                    **_shape(item),
                )
            )
    categories = [dict(id=i, name=label) for label, i in numbers.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def _shape(item: Object) -> dict[str, Any]:
    left, top, right, bottom = item.box
    shape = dict(
        bbox=[left, top, right - left, bottom - top],
        iscrowd=int(item.crowd),
        area=geometry.area_of(item.box),
    )
    if item.mask:
        # mmdet leaves out objects without area, such as a thin polygon.
        shape['area'] = _area_of_mask(item.mask) or shape['area']
        shape['segmentation'] = item.mask
    return shape


def _area_of_mask(mask: Any) -> float:
    if isinstance(mask, dict):
        parsed = geometry.parse_run_lengths(mask)
        return float(sum(parsed[1][1::2])) if parsed else 0
    return sum(map(geometry.polygon_area, mask))

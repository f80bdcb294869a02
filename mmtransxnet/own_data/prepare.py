"""Writes a collection as files that OpenMMLab's data sets load."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtransxnet.own_data import geometry, label_maps
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
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

SPLITS = ('train', 'val', 'test')


def prepare(
    collection: Collection, folder: str | Path, seed: int = 0
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

    Returns:
        What was written.

    Raises:
        UserError: The folder is within the data or cannot be written, or the
            data cannot be split.
    """
    folder = _outside(collection.root, Path(folder))
    collection = replace(
        collection,
        pictures=list(collection.pictures),
        reasons=list(collection.reasons),
        dropped=collection.dropped.copy(),
    )
    suffix = _common_suffix(collection.pictures)
    labels = _labels_of(collection.pictures)
    if collection.task == SEGMENTATION:
        labels = _write_label_maps(collection, folder, suffix)
    collection = split(collection, labels, seed)
    segments = collection.task == SEGMENTATION
    return Prepared(
        collection=collection,
        folder=folder,
        picture_root=collection.root,
        splits={
            name: _write_split(collection, folder, name, labels, suffix)
            for name in SPLITS
            if any(picture.split == name for picture in collection.pictures)
        },
        label_map_root=folder / 'label_maps' if segments else None,
        img_suffix=suffix if segments else None,
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


def _write_label_maps(
    collection: Collection, folder: Path, suffix: str
) -> Labels:
    """Write the label maps; the pictures refer to them afterwards."""
    labels = {}
    for i, picture in enumerate(collection.pictures):
        numbers = label_maps.class_numbers(collection, picture)
        name = _name(collection.root, picture.path, suffix)
        path = folder / 'label_maps' / f'{name}.png'
        write_safely(path, label_maps.png(numbers), 'start again')
        labels[picture.path] = frozenset(
            collection.classes[number]
            for number in np.unique(numbers)
            if number != label_maps.IGNORED
        )
        collection.pictures[i] = replace(picture, label_map=path)
    collection.label_values = None
    return labels


def _write_split(
    collection: Collection,
    folder: Path,
    name: str,
    labels: Labels,
    suffix: str,
) -> Split:
    pictures = [p for p in collection.pictures if p.split == name]
    if collection.task == DETECTION:
        path = folder / f'{name}.json'
        content = json.dumps(_coco(collection, pictures), allow_nan=False)
        counts = Counter(o.label for p in pictures for o in p.objects)
    else:
        path = folder / f'{name}.txt'
        lines = _lines(collection, pictures, suffix)
        content = ''.join(f'{line}\n' for line in lines)
        counts = Counter(label for p in pictures for label in labels[p.path])
    write_safely(path, content.encode(), 'start again')
    return Split(
        ann_file=path,
        pictures=len(pictures),
        objects={label: counts[label] for label in collection.classes},
    )


def _lines(
    collection: Collection, pictures: Iterable[Picture], suffix: str
) -> list[str]:
    """A line for each picture, with its class in classification."""
    if collection.task != CLASSIFICATION:
        return [_name(collection.root, p.path, suffix) for p in pictures]
    numbers = {label: i for i, label in enumerate(collection.classes)}
    return [
        f'{_name(collection.root, p.path)} {numbers[str(p.label)]}'
        for p in pictures
    ]


def _coco(
    collection: Collection, pictures: Iterable[Picture]
) -> dict[str, Any]:
    numbers = {label: i for i, label in enumerate(collection.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        images.append(
            dict(
                id=len(images) + 1,
                file_name=_name(collection.root, picture.path),
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

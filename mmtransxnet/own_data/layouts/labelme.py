"""LabelMe's json, one beside each picture."""

import math
from pathlib import PurePosixPath
from typing import Any

from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Canvas, Gatherer
from mmtransxnet.own_data.layouts.common import (
    has_texts,
    require_same_classes,
    sorted_classes,
)
from mmtransxnet.own_data.parsing import class_name, number, read_json
from mmtransxnet.utils.errors import UserError

KIND = 'LabelMe'

_CIRCLE_CORNERS = 64


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    files = _annotation_files(folder)
    if not files:
        return None
    return (
        f'{files[0]} (and {len(files) - 1} more) has "shapes" and "imagePath"'
    )


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    for file in _annotation_files(folder):
        content = read_json(folder.root / file)
        shapes = content.get('shapes') if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            raise UserError(
                f'{folder.root / file} is not LabelMe\'s json: "shapes" must '
                'be a list; export it again'
            )
        name = content.get('imagePath')
        picture = folder.find(name, file) if isinstance(name, str) else None
        picture = picture or folder.with_stem(file)
        if picture is None:
            gatherer.drop(NO_PICTURE, file)
            continue
        canvas = gatherer.open(picture, _size_of(content))
        if canvas is None:
            continue
        for shape in shapes:
            _add_shape(gatherer, canvas, shape)
        canvas.keep(split_of(picture))
    gatherer.drop_unlisted()
    gatherer.reasons.append(
        'Pictures whose json has no shapes are kept as background.'
    )
    gatherer.require_pictures()
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(sorted_classes(gatherer.pictures), task)


def _annotation_files(folder: Folder) -> list[PurePosixPath]:
    return [
        file
        for file in folder.with_suffix('.json')
        if has_texts(folder.root / file, '"shapes"', '"imagePath"')
    ]


def _size_of(content: dict[str, Any]) -> tuple[float, float] | None:
    width = number(content.get('imageWidth'))
    height = number(content.get('imageHeight'))
    return (width, height) if width > 0 and height > 0 else None


def _add_shape(gatherer: Gatherer, canvas: Canvas, shape: Any) -> None:
    label = class_name(shape.get('label')) if isinstance(shape, dict) else None
    if label is None:
        gatherer.drop('shape without a class name', shape)
        return
    points = _points(shape.get('points'))
    kind = shape.get('shape_type') or 'polygon'
    if not points:
        gatherer.drop('shape whose points are not valid', label)
    elif kind == 'rectangle' and len(points) in (2, 4):
        xs, ys = zip(*points, strict=True)
        canvas.add_box(label, (min(xs), min(ys), max(xs), max(ys)))
    elif kind == 'circle' and len(points) == 2:
        canvas.add_polygons(label, [_circle(*points)])
    elif kind == 'polygon':
        canvas.add_polygons(label, [[c for point in points for c in point]])
    else:
        gatherer.drop('shape that is no polygon, rectangle or circle', kind)


def _points(value: Any) -> list[tuple[float, float]]:
    """Points as pairs; empty if one is not valid."""
    if not isinstance(value, list):
        return []
    points = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return []
        x, y = map(number, pair)
        if math.isnan(x) or math.isnan(y):
            return []
        points.append((x, y))
    return points


def _circle(
    centre: tuple[float, float], edge: tuple[float, float]
) -> list[float]:
    """A circle as a polygon."""
    radius = math.dist(centre, edge)
    angles = (
        2 * math.pi * i / _CIRCLE_CORNERS for i in range(_CIRCLE_CORNERS)
    )
    return [
        c
        for angle in angles
        for c in (
            centre[0] + radius * math.cos(angle),
            centre[1] + radius * math.sin(angle),
        )
    ]

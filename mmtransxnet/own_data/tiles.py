"""Cutting of large pictures into tiles, and the way back."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np

from mmtransxnet.own_data import geometry, label_maps
from mmtransxnet.own_data.collection import (
    SEGMENTATION,
    Collection,
    Object,
    Picture,
)
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.windows import windows

LARGE = 1500
"""Longer side in pixels from which cutting is advised."""

LEAST_SHARE = 0.3
"""Share of an object's area that has to be within a tile to be kept there."""

RECORD = 'tiles.json'

_MIN_TILE = 32


@dataclass(frozen=True)
class Tile:
    """Where a tile is in its picture.

    Attributes:
        name: The tile's file, relative to the folder of tiles.
        picture: The picture's file, relative to the data.
        left: In pixels of the picture.
        top: In pixels of the picture.
        width: Of the tile.
        height: Of the tile.
    """

    name: str
    picture: str
    left: int
    top: int
    width: int
    height: int


def cut(
    collection: Collection,
    folder: Path,
    size: int,
    overlap: float = 0.2,
) -> Collection:
    """Cut all pictures into overlapping tiles.

    Writes ``folder/pictures``, ``folder/label_maps`` in segmentation, and
    ``folder/tiles.json`` with the place of each tile and the size of each
    picture. An object is kept in a tile that has at least
    :data:`LEAST_SHARE` of its area; what reaches over the edge is clipped.

    Args:
        collection: Pictures with splits; in segmentation, with label maps
            that have the numbers of classes.
        folder: Where to write.
        size: Side of a tile in pixels.
        overlap: Share of a tile's side in common with the next.

    Returns:
        The collection with tiles as its pictures.

    Raises:
        UserError: The size or the overlap is out of range, or a picture
            cannot be decoded.
    """
    if size < _MIN_TILE:
        raise UserError(
            f'tiles of {size} pixels are too small: give at least {_MIN_TILE}'
        )
    tiles: list[Tile] = []
    cut_pictures: list[Picture] = []
    dropped: Counter[str] = Counter()
    sizes = {}
    for picture in collection.pictures:
        name = picture.path.relative_to(collection.root).as_posix()
        sizes[name] = [picture.width, picture.height]
        for tile, part in _cut_picture(
            picture, name, folder, size, overlap, dropped
        ):
            tiles.append(tile)
            cut_pictures.append(part)
    content = dict(
        pictures=sizes,
        tiles={
            tile.name: [
                *(tile.picture, tile.left, tile.top),
                *(tile.width, tile.height),
            ]
            for tile in tiles
        },
    )
    write_safely(folder / RECORD, json.dumps(content).encode(), 'start again')
    reasons = [
        *collection.reasons,
        f'{len(sizes)} pictures were cut into {len(tiles)} tiles of {size} '
        f'pixels with an overlap of {overlap:.0%}; an object is kept in each '
        f'tile that has at least {LEAST_SHARE:.0%} of its area.',
    ]
    if collection.task != SEGMENTATION:
        reasons += _objects_before_and_after(collection, cut_pictures)
    return replace(
        collection,
        pictures=cut_pictures,
        reasons=reasons,
        dropped=collection.dropped + dropped,
    )


def _cut_picture(
    picture: Picture,
    name: str,
    folder: Path,
    size: int,
    overlap: float,
    dropped: Counter[str],
) -> Iterator[tuple[Tile, Picture]]:
    """Write the tiles of a picture."""
    pixels = _decoded(picture.path)
    labels = picture.label_map
    numbers = None if labels is None else label_maps.read_values(labels)
    for left, top, width, height in windows(
        picture.height, picture.width, size, overlap
    ):
        # The whole name: pictures may differ in their suffix only.
        tile = Tile(f'{name}_{left}_{top}.png', name, left, top, width, height)
        area = np.s_[top : top + height, left : left + width]
        path = folder / 'pictures' / tile.name
        content = cv2.imencode('.png', pixels[area])[1].tobytes()
        write_safely(path, content, 'start again')
        part = replace(
            picture,
            path=path,
            width=width,
            height=height,
            objects=tuple(_parts(picture, tile, dropped)),
        )
        if numbers is not None:
            label_path = folder / 'label_maps' / tile.name
            content = label_maps.png(numbers[area].astype(np.uint8))
            write_safely(label_path, content, 'start again')
            part = replace(part, label_map=label_path)
        yield tile, part


def _decoded(path: Path) -> np.ndarray:
    """A picture as OpenMMLab loads it, BGR uint8 (H, W, 3)."""
    pixels = mmcv.imread(str(path))
    if pixels is None:
        raise UserError(
            f'{path} cannot be decoded: export it again, or remove it'
        )
    return pixels


def _parts(
    picture: Picture, tile: Tile, dropped: Counter[str]
) -> Iterator[Object]:
    """The parts of objects that are within a tile."""
    window = (
        float(tile.left),
        float(tile.top),
        float(tile.left + tile.width),
        float(tile.top + tile.height),
    )
    for item in picture.objects:
        part = _part(item, picture, window)
        if part is not None:
            yield part
        elif geometry.area_of(geometry.clip_box(item.box, window)):
            dropped[
                'part of an object in a tile (too small; other tiles have '
                'more of it)'
            ] += 1


def _part(
    item: Object, picture: Picture, window: geometry.Box
) -> Object | None:
    """The part of an object within a window; None if it is too small."""
    box = geometry.clip_box(item.box, window)
    share = geometry.area_of(box) / geometry.area_of(item.box)
    if not share:
        return None
    whole, mask = share == 1, None
    if item.mask is not None:
        mask, share = _part_of_mask(item, picture, window)
        if not mask:
            return None
        box = box if whole else _box_around(mask)
    narrow = box[2] - box[0] < 1 or box[3] - box[1] < 1
    if narrow or share < LEAST_SHARE:
        return None
    return Object(item.label, box, mask, item.crowd)


def _part_of_mask(
    item: Object, picture: Picture, window: geometry.Box
) -> tuple[Any, float]:
    """A mask within a window, and its share of the whole area."""
    if isinstance(item.mask, dict):
        whole = label_maps.mask_of(item, picture.width, picture.height)
        left, top, right, bottom = map(int, window)
        part = whole[top:bottom, left:right]
        run = dict(size=list(part.shape), counts=geometry.counts_of(part))
        return (run if part.any() else None), part.sum() / whole.sum()
    clipped = [geometry.clip_polygon(p, window) for p in item.mask]
    kept = [p for p in clipped if p and geometry.polygon_area(p)]
    whole_area = sum(map(geometry.polygon_area, item.mask))
    area = sum(map(geometry.polygon_area, kept))
    return kept, area / whole_area if whole_area else 0.0


def _box_around(mask: Any) -> geometry.Box:
    if not isinstance(mask, dict):
        return geometry.box_around(mask)
    parsed = geometry.parse_run_lengths(mask)
    around = parsed and geometry.box_of_mask(geometry.mask_of(*parsed))
    assert around  # empty masks are not kept
    return around


def _objects_before_and_after(
    collection: Collection, parts: Iterable[Picture]
) -> list[str]:
    """How the number of objects changed."""
    before = sum(len(picture.objects) for picture in collection.pictures)
    after = sum(len(picture.objects) for picture in parts)
    return [f'{before} objects became {after} in tiles.']


def read_record(folder: str | Path) -> dict[str, Tile]:
    """Return where the tiles in ``folder/tiles.json`` are, by name."""
    content = json.loads((Path(folder) / RECORD).read_text())
    return {name: Tile(name, *row) for name, row in content['tiles'].items()}


def whole_picture(
    tiles: Mapping[str, Tile], boxes: Mapping[str, Sequence[Sequence[float]]]
) -> dict[str, list[tuple[str, list[float]]]]:
    """Move boxes from tiles to the whole pictures.

    Args:
        tiles: From :func:`read_record`.
        boxes: Left, top, right and bottom in pixels of a tile, by the name of
            the tile.

    Returns:
        For each picture, the tile and the box in pixels of the picture. Boxes
        of an object in several tiles are not merged.
    """
    moved: dict[str, list[tuple[str, list[float]]]] = {}
    for name, found in boxes.items():
        tile = tiles[name]
        offset = (tile.left, tile.top) * 2
        moved.setdefault(tile.picture, []).extend(
            (name, [c + o for c, o in zip(box, offset, strict=True)])
            for box in found
        )
    return moved


def whole_label_map(
    tiles: Mapping[str, Tile], label_map_of: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Join label maps of tiles.

    Where tiles overlap, each pixel has the value of the tile in which it is
    farthest from the edge, since predictions are worst there.

    Args:
        tiles: From :func:`read_record`.
        label_map_of: Label maps (H, W), by the name of the tile.

    Returns:
        A label map (H, W) for each picture, 255 where no tile was given.
    """
    joined: dict[str, np.ndarray] = {}
    depths: dict[str, np.ndarray] = {}
    for name, numbers in label_map_of.items():
        tile = tiles[name]
        if tile.picture not in joined:
            all_of_it = [
                t for t in tiles.values() if t.picture == tile.picture
            ]
            size = (
                max(t.top + t.height for t in all_of_it),
                max(t.left + t.width for t in all_of_it),
            )
            joined[tile.picture] = np.full(size, label_maps.IGNORED, np.uint8)
            depths[tile.picture] = np.zeros(size, np.int32)
        area = np.s_[
            tile.top : tile.top + tile.height,
            tile.left : tile.left + tile.width,
        ]
        depth = _distance_to_edge(tile.height, tile.width)
        deeper = depth > depths[tile.picture][area]
        depths[tile.picture][area][deeper] = depth[deeper]
        joined[tile.picture][area][deeper] = numbers[deeper]
    return joined


def _distance_to_edge(height: int, width: int) -> np.ndarray:
    """Distance of each pixel to the closest edge, from 1 on."""
    rows, columns = (
        np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1))
        for side in (height, width)
    )
    return np.minimum(rows[:, None], columns[None])

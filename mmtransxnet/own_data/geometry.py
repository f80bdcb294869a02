"""Boxes, polygons and run-lengths within a picture.

A box is ``(left, top, right, bottom)``, a polygon ``[x, y, x, y, ...]``, and
run-lengths are COCO's: counts of pixels outside and inside, column by column.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmtransxnet.own_data.parsing import number

Box = tuple[float, float, float, float]
Size = tuple[int, int]


def clip_box(box: Box, window: Box) -> Box:
    """Return the part of a box within a window, in its coordinates."""
    left, top, right, bottom = window
    x1, x2 = (min(max(x, left), right) - left for x in box[::2])
    y1, y2 = (min(max(y, top), bottom) - top for y in box[1::2])
    return x1, y1, x2, y2


def area_of(box: Box) -> float:
    """Return the area of a box, 0 if it is empty."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def box_around(polygons: Sequence[Sequence[float]]) -> Box:
    """Return the box around polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area that a polygon encloses."""
    x, y = np.asarray(polygon, float).reshape(-1, 2).T
    return abs(
        float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    )


def clip_polygon(polygon: Sequence[float], window: Box) -> list[float]:
    """Return the part of a polygon within a window, in its coordinates.

    Sutherland and Hodgman's algorithm: parts that come apart stay connected
    along the edge of the window, by lines without area.

    Returns:
        An empty list if nothing is left.
    """
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    for axis, limit, sign in (
        (0, window[0], 1),
        (1, window[1], 1),
        (0, window[2], -1),
        (1, window[3], -1),
    ):
        points = _clip_at(points, axis, limit, sign)
    if len(points) < 3:
        return []
    left, top = window[:2]
    return [c for x, y in points for c in (x - left, y - top)]


def _clip_at(
    points: list[tuple[float, float]], axis: int, limit: float, sign: int
) -> list[tuple[float, float]]:
    """The part of a polygon on one side of a line along an axis."""
    kept = []
    for start, end in zip(points[-1:] + points[:-1], points, strict=True):
        inside = [sign * (point[axis] - limit) >= 0 for point in (start, end)]
        if inside[0] != inside[1]:
            share = (limit - start[axis]) / (end[axis] - start[axis])
            across = 1 - axis
            other = start[across] + share * (end[across] - start[across])
            kept.append((limit, other) if axis == 0 else (other, limit))
        if inside[1]:
            kept.append(end)
    return kept


def parse_polygons(value: Any) -> list[list[float]] | None:
    """Return COCO's polygons with at least three corners, None if invalid."""
    if not isinstance(value, list):
        return None
    polygons = []
    for polygon in value:
        if not isinstance(polygon, list):
            return None
        numbers = [number(c) for c in polygon]
        if any(math.isnan(c) or abs(c) > 1e9 for c in numbers):
            return None
        if len(numbers) >= 6 and len(numbers) % 2 == 0:
            polygons.append(numbers)
    return polygons or None


def parse_run_lengths(value: Any) -> tuple[Size, list[int]] | None:
    """Return height, width and counts of run-lengths, None if invalid."""
    if not isinstance(value, dict):
        return None
    size, counts = value.get('size'), value.get('counts')
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 0 < side < 10**6 for side in size)
    ):
        return None
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or any(
        type(count) is not int or count < 0 for count in counts
    ):
        return None
    if sum(counts) != size[0] * size[1]:
        return None
    return (size[0], size[1]), counts


def _decompress(text: str) -> list[int] | None:
    """COCO's compressed counts; None if they are not valid.

    The parser of pycocotools reads behind the end of an incomplete text.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        # From the fourth on, they are differences to the last but one.
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def mask_of(size: Size, counts: Sequence[int]) -> np.ndarray:
    """Return run-lengths as a mask, bool (H, W)."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size[1], size[0]).T


def counts_of(mask: np.ndarray) -> list[int]:
    """Return the run-lengths of a mask (H, W)."""
    flat = np.concatenate([[False], mask.T.ravel().astype(bool)])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *starts, mask.size]).tolist()


def box_of_mask(mask: np.ndarray) -> Box | None:
    """Return the box around a mask (H, W), None if it is empty."""
    columns = np.flatnonzero(mask.any(0))
    rows = np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] + 1),
        float(rows[-1] + 1),
    )


def turn_points(
    points: Sequence[float], size: Size, orientation: int
) -> list[float]:
    """Turn points ``[x, y, ...]`` of a stored picture as EXIF says.

    Args:
        points: In pixels of the picture as it is stored.
        size: Width and height as it is stored.
        orientation: EXIF's, 5 to 8 (on its side).
    """
    width, height = size
    turn = {
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }[orientation]
    pairs = zip(points[::2], points[1::2], strict=True)
    return [c for x, y in pairs for c in turn(x, y)]


def turn_mask(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a mask (H, W) of a stored picture as EXIF says, 5 to 8."""
    return {
        5: lambda: mask.T,
        6: lambda: np.rot90(mask, -1),
        7: lambda: np.rot90(mask, 2).T,
        8: lambda: np.rot90(mask, 1),
    }[orientation]()

"""Label maps with the numbers of classes, from any usual values or masks."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mmtransxnet.own_data import geometry
from mmtransxnet.own_data.collection import Collection, Object, Picture
from mmtransxnet.utils.errors import UserError

IGNORED = 255
"""Value of pixels that are ignored in training."""

MAX_CLASSES = 255

# Modes of pillow in which a pixel is a number or an index of a palette.
_NUMBERS = ('P', 'L', '1', 'I', 'I;16', 'I;16B')


def class_numbers(collection: Collection, picture: Picture) -> np.ndarray:
    """Return the class of each pixel, uint8 (H, W); 255 is ignored."""
    if picture.label_map is None:
        return _draw(collection, picture)
    values = read_values(picture.label_map)
    if collection.label_values is None:
        known = values < len(collection.classes)
        return np.where(known, values, IGNORED).astype(np.uint8)
    numbers = np.full(values.shape, IGNORED, np.uint8)
    for number, value in enumerate(collection.label_values):
        numbers[values == packed(value)] = number
    return numbers


def read_values(path: Any) -> np.ndarray:
    """Return what a label map's file has, as numbers (H, W).

    Indices stay as they are, also those of a palette; a colour becomes
    ``red * 65536 + green * 256 + blue``.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode in _NUMBERS:
                return np.array(image).astype(np.int64)
            colours = np.array(image.convert('RGB')).astype(np.int64)
    # Pillow raises many kinds of errors for a broken file.
    except Exception as error:
        raise UserError(
            f'{path} is a label map that cannot be decoded ({error}): export '
            'it again, or remove it and its picture'
        ) from error
    return colours @ np.array([65536, 256, 1])


def is_of_colours(path: Any) -> bool:
    """Whether a label map's file has colours instead of numbers."""
    with Image.open(path) as image:
        return image.mode not in _NUMBERS


def packed(value: Any) -> int:
    """Return a value or colour as :func:`read_values` has it."""
    if isinstance(value, int):
        return value
    red, green, blue = value
    return red * 65536 + green * 256 + blue


def pixel_shares(pictures: Iterable[Picture], classes: int) -> np.ndarray:
    """Return the share of the pixels that each class has, (classes,).

    Args:
        pictures: With label maps that have the numbers of classes.
        classes: How many there are.

    Returns:
        The shares; ignored pixels are left out. All are 0 if there are no
        pixels.
    """
    counts = np.zeros(IGNORED + 1, np.int64)
    for picture in pictures:
        values = read_values(picture.label_map)
        counts += np.bincount(values.ravel(), minlength=IGNORED + 1)
    known: np.ndarray = counts[:classes]
    return known / max(1, known.sum())


def png(numbers: np.ndarray) -> bytes:
    """Return a label map as the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(numbers).save(file, 'PNG')
    return file.getvalue()


def mask_of(item: Object, width: int, height: int) -> np.ndarray:
    """Return the mask of an object, bool (H, W)."""
    if isinstance(item.mask, dict):
        parsed = geometry.parse_run_lengths(item.mask)
        assert parsed is not None  # was checked when it was read
        return geometry.mask_of(*parsed)
    parts = coco_mask.frPyObjects(item.mask, height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def _draw(collection: Collection, picture: Picture) -> np.ndarray:
    """Class 0 is the background; small objects lie above large ones."""
    numbers = np.zeros((picture.height, picture.width), np.uint8)
    index = {name: i for i, name in enumerate(collection.classes)}
    for item in sorted(
        picture.objects, key=lambda o: geometry.area_of(o.box), reverse=True
    ):
        inside = mask_of(item, picture.width, picture.height)
        numbers[inside] = index[item.label]
    return numbers

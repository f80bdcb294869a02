"""Predict with an exported model; PyTorch is not needed.

This file needs numpy, pillow and onnxruntime or openvino. It is copied into
each exported folder as predict.py.

    python exported/predict.py photos/ --out drawn --json results.json

    from predict import load
    model = load('exported')
    result = model('photo.jpg')  # or a PIL image, an RGB array, a list
"""

import argparse
import colorsys
import contextlib
import hashlib
import importlib
import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FORMAT_VERSION = 1

IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.webp'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.tif', '.tiff', '.gif', '.avif'),
    *('.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx'),
)
"""Files of a folder that are predicted: pillow's suffixes of the formats below
with values of 8 or 16 bits."""

MAX_RATIO = 100
"""Maximum ratio of a picture's longer to its shorter side."""

# Decoders of other formats should not run on untrusted files (EPS starts
# Ghostscript).
_FORMATS = (
    'JPEG',
    'PNG',
    'BMP',
    'WEBP',
    'PPM',
    'TIFF',
    'GIF',
    'JPEG2000',
    'AVIF',
)


class ModelError(Exception):
    """A folder or an engine that cannot be used; says the remedy."""


class PictureError(ValueError):
    """A picture that cannot be predicted; the message gives the reason."""


class PictureSizeError(PictureError):
    """A picture that is too large, or much longer than wide."""


# ---- Pictures ----------------------------------------------------------

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(
    source: str | Path | bytes | Image.Image | np.ndarray,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Read a picture, upright.

    Args:
        source: File, content of a file, PIL image, or an RGB array
            ``(H, W, 3)`` of uint8.
        max_pixels: Maximum width x height; pillow's limit for decompression
            bombs if not set.

    Returns:
        Red, green, blue ``(H, W, 3)``, uint8.

    Raises:
        PictureError: It is missing, truncated, not a picture, or of a size
            that cannot be handled.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source)
    if isinstance(source, Image.Image):
        with _PillowErrors('the image'):
            return _decode(source, 'the image', max_pixels)
    name = 'the picture'
    file: BinaryIO
    try:
        if isinstance(source, bytes):
            file = io.BytesIO(source)
        else:
            name = str(source)
            file = open(source, 'rb')  # noqa: SIM115
    except OSError as error:
        raise PictureError(
            f'{name} cannot be read ({error.strerror})'
        ) from error
    with file, _PillowErrors(name):
        return _decode(Image.open(file, formats=_FORMATS), name, max_pixels)


class _PillowErrors:
    """Turn pillow's exceptions into errors that name the picture."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        # Warnings about files that pillow can read nevertheless.
        warnings.simplefilter('ignore')

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        if isinstance(error, Image.DecompressionBombError):
            raise PictureSizeError(
                f'{self._name} is too large ({error})'
            ) from error
        # Pillow raises many kinds of errors for a broken file.
        if isinstance(error, Exception) and not isinstance(
            error, PictureError
        ):
            raise PictureError(
                f'{self._name} cannot be decoded ({_reason(error)})'
            ) from error


def _reason(error: Exception) -> str:
    """The first line of an error, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _checked_array(pixels: np.ndarray) -> np.ndarray:
    expected = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    if not expected or pixels.dtype != np.uint8:
        raise PictureError(
            f'an array of {pixels.dtype} and shape {pixels.shape}: expected '
            'uint8 of shape (height, width, 3), red, green, blue'
        )
    _check_size(pixels.shape[1], pixels.shape[0], 'the array', None)
    return pixels


def _check_size(
    width: int, height: int, name: str, max_pixels: int | None
) -> None:
    short, long = sorted((width, height))
    if long > MAX_RATIO * short:
        raise PictureSizeError(
            f'{name} has {width} x {height} pixels: one side is more than '
            f'{MAX_RATIO} times the other'
        )
    if max_pixels is not None and width * height > max_pixels:
        raise PictureSizeError(
            f'{name} has {width} x {height} pixels, more than {max_pixels}'
        )


def _decode(
    image: Image.Image, name: str, max_pixels: int | None
) -> np.ndarray:
    _check_size(*image.size, name, max_pixels)
    orientation = _orientation(image, name)
    # A decoder such as JPEG's fills in what a truncated file lacks only if
    # it is asked to.
    image.load()
    if image.format == 'TIFF':
        # Loading has turned it and removed the orientation.
        orientation = _orientation(image, name)
    if image.mode.startswith('I'):
        # 16 bits in one channel; the high byte, as OpenCV reads it.
        pixels = np.asarray(image).astype(np.int32) >> 8
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    elif image.mode == 'F':
        raise PictureError(f'{name} has values of float32; store it as uint8')
    if image.mode != 'RGB':
        image = image.convert('RGB')
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return np.asarray(image)


def _orientation(image: Image.Image, name: str) -> int:
    """The EXIF orientation that the training would have applied."""
    # In a PNG, pillow would also read it from behind the pixels.
    if image.format == 'PNG' and 'exif' not in image.info:
        return _UPRIGHT
    orientation = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
    if image.format == 'WEBP' and orientation != _UPRIGHT:
        raise PictureError(
            f'{name} is a WEBP with an EXIF rotation, which OpenCV does not '
            'apply: store it upright'
        )
    return orientation


# ---- Preparation -------------------------------------------------------

_PILLOW_FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'box': Image.Resampling.BOX,
    'lanczos': Image.Resampling.LANCZOS,
    'hamming': Image.Resampling.HAMMING,
}

_WEIGHT_BITS = 11
"""Fixed-point bits of OpenCV's weights of bilinear interpolation."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the model takes it.

    Attributes:
        pixels: ``(h, w, 3)``, uint8 RGB.
        size: Height and width of the original picture.
    """

    pixels: np.ndarray
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Width and height relative to the original picture's."""
        height, width = self.pixels.shape[:2]
        return width / self.size[1], height / self.size[0]


def resize_bilinear(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize as OpenCV does: half-pixel centres, no antialiasing.

    OpenCV computes bytes with fixed-point weights. So does this function; the
    values differ by one level at most.

    Args:
        pixels: ``(H, W, C)``, uint8.
        width: New width.
        height: New height.

    Returns:
        ``(height, width, C)``, uint8.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    left, right, wx0, wx1 = _taps(pixels.shape[1], width)
    top, bottom, wy0, wy1 = _taps(pixels.shape[0], height)
    wx0, wx1 = wx0[:, None], wx1[:, None]
    output = np.empty((height, width, pixels.shape[2]), np.uint8)
    # A block of rows stays in the cache.
    block = max(1, 2**16 // (width * pixels.shape[2]))
    for start in range(0, height, block):
        rows = slice(start, start + block)
        first = int(top[rows][0])
        source = pixels[first : int(bottom[rows][-1]) + 1]
        used = np.unique(np.concatenate([top[rows], bottom[rows]]) - first)
        line = np.empty(len(source), np.int64)
        line[used] = np.arange(len(used))
        source = source[used].astype(np.int32)
        across = source[:, left] * wx0 + source[:, right] * wx1 >> 4
        upper = across[line[top[rows] - first]] * wy0[rows, None, None]
        lower = across[line[bottom[rows] - first]] * wy1[rows, None, None]
        output[rows] = (upper >> 16) + (lower >> 16) + 2 >> 2
    return output


def _taps(size: int, new: int) -> tuple[np.ndarray, ...]:
    """Indices of both neighbours of each new pixel and their weights."""
    # OpenCV computes positions in double, then rounds them to float.
    centres = (np.arange(new) + 0.5) * (size / new) - 0.5
    centres = centres.astype(np.float32)
    low = np.floor(centres).astype(np.int64)
    fraction = centres - low.astype(np.float32)
    fraction[(low < 0) | (low >= size - 1)] = 0
    low = np.clip(low, 0, size - 1)
    one = np.float32(1 << _WEIGHT_BITS)
    return (
        low,
        np.minimum(low + 1, size - 1),
        np.rint((1 - fraction) * one).astype(np.int32),
        np.rint(fraction * one).astype(np.int32),
    )


def _resize_to(
    pixels: np.ndarray, width: int, height: int, step: Mapping[str, Any]
) -> np.ndarray:
    width, height = max(1, width), max(1, height)
    if step.get('backend', 'cv2') == 'pillow':
        kind = _PILLOW_FILTERS[step.get('interpolation', 'bilinear')]
        image = Image.fromarray(pixels).resize((width, height), kind)
        return np.asarray(image)
    return resize_bilinear(pixels, width, height)


def _resize(
    pixels: np.ndarray, step: Mapping[str, Any], limit: Sequence[int] | None
) -> np.ndarray:
    """Resize as mmcv does, within a limit (height, width) if there is one."""
    height, width = pixels.shape[:2]
    if not step.get('keep_ratio', False):
        width, height = step['scale']
        return _resize_to(pixels, width, height, step)
    factor = min(
        max(step['scale']) / max(height, width),
        min(step['scale']) / min(height, width),
    )
    if limit is not None:
        factor = min(factor, limit[0] / height, limit[1] / width)
    width, height = int(width * factor + 0.5), int(height * factor + 0.5)
    return _resize_to(pixels, width, height, step)


def _resize_edge(pixels: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """Resize as mmpretrain's ResizeEdge."""
    height, width = pixels.shape[:2]
    edge, scale = step.get('edge', 'short'), int(step['scale'])
    by_width = edge == 'width' or (
        width < height if edge == 'short' else width > height
    )
    if edge != 'height' and by_width:
        return _resize_to(pixels, scale, int(scale * height / width), step)
    return _resize_to(pixels, int(scale * width / height), scale, step)


def _center_crop(pixels: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """Crop as mmpretrain's CenterCrop; a smaller side stays as it is."""
    height, width = (
        min(*pair) for pair in zip(step['size'], pixels.shape, strict=False)
    )
    top = round((pixels.shape[0] - height) / 2)
    left = round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _resize_to_multiple(
    pixels: np.ndarray, step: Mapping[str, Any]
) -> np.ndarray:
    """Resize as mmseg's ResizeToMultiple."""
    height, width = (_up(n, step['divisor']) for n in pixels.shape[:2])
    return _resize_to(pixels, width, height, step)


def _up(size: int, divisor: int) -> int:
    """The next multiple of a divisor."""
    return -(-size // divisor) * divisor


_STEPS = {
    'resize_edge': _resize_edge,
    'center_crop': _center_crop,
    'resize_to_multiple': _resize_to_multiple,
}


def apply_steps(
    pixels: np.ndarray,
    steps: Iterable[Mapping[str, Any]],
    limit: Sequence[int] | None = None,
) -> np.ndarray:
    """Apply the steps of ``model.json`` to a picture.

    Args:
        pixels: ``(H, W, 3)``, uint8.
        steps: ``resize``, ``resize_edge``, ``center_crop``,
            ``resize_to_multiple``, with their settings.
        limit: Maximum height and width that ``resize`` returns.

    Returns:
        ``(h, w, 3)``, uint8.
    """
    for step in steps:
        if step['step'] == 'resize':
            pixels = _resize(pixels, step, limit)
        else:
            pixels = _STEPS[step['step']](pixels, step)
    return pixels


# ---- Masks -------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Patch:
    """A mask that is zero outside of a rectangle of the picture.

    Attributes:
        pixels: ``(h, w)``, bool.
        top: First row of the rectangle.
        left: First column of the rectangle.
    """

    pixels: np.ndarray
    top: int
    left: int

    def run_length(self, height: int, width: int) -> dict[str, Any]:
        """The mask in a picture of this size as COCO's compressed RLE."""
        return {
            'size': [height, width],
            'counts': encode_counts(self._counts(height, width)),
        }

    def _counts(self, height: int, width: int) -> np.ndarray:
        """Lengths of the runs, column by column, the first of zeros."""
        edges = np.pad(self.pixels.T.astype(np.int8), ((0, 0), (1, 1)))
        steps = np.diff(edges, axis=1)
        start, stop = (
            (column + self.left) * height + row + self.top
            for column, row in (np.nonzero(steps == sign) for sign in (1, -1))
        )
        # A run that reaches the bottom may continue in the next column.
        ends = np.append(start[1:] != stop[:-1], True)[: len(stop)]
        starts = np.append(True, start[1:] != stop[:-1])[: len(start)]
        turns = np.stack([start[starts], stop[ends]], axis=1).ravel()
        total = height * width
        # The last run may be of ones.
        inside = turns[turns < total]
        return np.diff(inside, prepend=0, append=total)


def encode_counts(counts: np.ndarray) -> str:
    """Compress the lengths of runs as COCO's tools do.

    Args:
        counts: ``(N,)``, integers; the first run is of zeros.

    Returns:
        Differences to the run before the previous, five bits a character.
    """
    values = np.asarray(counts, np.int64).copy()
    values[3:] -= np.asarray(counts, np.int64)[1:-2]
    characters = []
    active = np.ones(len(values), bool)
    while active.any():
        low = values & 31
        values >>= 5
        more = values != np.where(low & 16, -1, 0)
        characters.append(np.where(active, low + 48 + 32 * more, 0))
        active &= more
    table = np.stack(characters, axis=1) if characters else np.empty((0, 0))
    return table[table > 0].astype(np.uint8).tobytes().decode('ascii')


def paste_mask(
    mask: np.ndarray,
    box: np.ndarray,
    size: tuple[int, int],
    threshold: float,
) -> Patch:
    """Paste the mask of a box into its picture, as mmdet does.

    Args:
        mask: Probabilities ``(S, S)``.
        box: x1, y1, x2, y2 in pixels of the picture.
        size: Height and width of the picture.
        threshold: Minimum probability, interpolated bilinearly.
    """
    height, width = size
    left, top = (max(math.floor(v) - 1, 0) for v in box[:2])
    right = max(min(math.ceil(box[2]) + 1, width), left)
    bottom = max(min(math.ceil(box[3]) + 1, height), top)
    rows = _interpolation(top, bottom, box[1], box[3], mask.shape[0])
    columns = _interpolation(left, right, box[0], box[2], mask.shape[1])
    return Patch(rows @ mask @ columns.T >= threshold, top, left)


def _interpolation(
    start: int, stop: int, low: float, high: float, samples: int
) -> np.ndarray:
    """Weights ``(pixels, samples)`` from samples of a box to pixels."""
    first, last = np.float32(low), np.float32(high)
    pixels = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        where = (pixels - first) / (last - first)
    where[~np.isfinite(where)] = 0.5
    where = where * samples - np.float32(0.5)
    distance = np.abs(where[:, None] - np.arange(samples, dtype=np.float32))
    return np.maximum(1 - distance, 0)


@dataclass(frozen=True, eq=False)
class Patches(Sequence[Patch]):
    """Masks of boxes, each pasted when it is read.

    All masks of a large picture would need gigabytes at a time.

    Attributes:
        masks: Probabilities ``(N, S, S)``.
        boxes: ``(N, 4)``, x1, y1, x2, y2 in pixels of the picture.
        size: Height and width of the picture.
        threshold: As :func:`paste_mask`.
    """

    masks: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]
    threshold: float

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: Any) -> Any:
        """A mask, or those of a slice or an array of indices."""
        masks, boxes = self.masks[index], self.boxes[index]
        if masks.ndim == 3:
            return Patches(masks, boxes, self.size, self.threshold)
        return paste_mask(masks, boxes, self.size, self.threshold)


# ---- Results -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Classification:
    """The classes of a picture.

    Attributes:
        size: Height and width of the picture.
        scores: ``(classes,)``, float32.
    """

    size: tuple[int, int]
    scores: np.ndarray

    @property
    def label(self) -> int:
        """The most likely class."""
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        """Its score."""
        return float(self.scores.max())


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects in a picture.

    Attributes:
        size: Height and width of the picture.
        boxes: ``(N, 4)``, float32, x1, y1, x2, y2 in its pixels.
        scores: ``(N,)``, float32.
        labels: ``(N,)``, int64.
        raw_masks: Probabilities in the boxes ``(N, S, S)``, float32; None if
            the model has no masks.
        patches: The masks, pasted when they are read; None if the model has
            no masks, or was exported with raw masks.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    raw_masks: np.ndarray | None = None
    patches: Sequence[Patch] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> np.ndarray | None:
        """Masks in the picture ``(N, H, W)``, bool; None as ``patches``."""
        if self.patches is None:
            return None
        masks = np.zeros((len(self), *self.size), bool)
        for mask, patch in zip(masks, self.patches, strict=True):
            height, width = patch.pixels.shape
            rows = slice(patch.top, patch.top + height)
            columns = slice(patch.left, patch.left + width)
            mask[rows, columns] = patch.pixels
        return masks

    def above(self, score: float) -> 'Detections':
        """The objects with at least this score."""
        (kept,) = np.nonzero(self.scores >= score)
        raw, patches = self.raw_masks, cast(Any, self.patches)
        return Detections(
            self.size,
            self.boxes[kept],
            self.scores[kept],
            self.labels[kept],
            None if raw is None else raw[kept],
            None if patches is None else patches[kept],
        )


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The classes of the pixels of a picture.

    Attributes:
        size: Height and width of the picture.
        labels: ``(H, W)``, uint8, or int64 with more than 256 classes.
        scores: ``(H, W)``, float32, the probability of the label.
    """

    size: tuple[int, int]
    labels: np.ndarray
    scores: np.ndarray


Result = Classification | Detections | Segmentation


def as_json(
    result: Result, classes: Sequence[str], image_id: int = 0
) -> list[dict[str, Any]]:
    """A result as data for JSON.

    Objects are COCO results: ``category_id`` is the index of the class,
    ``bbox`` is x, y, width, height, ``segmentation`` a compressed RLE. Of a
    label map, it is the classes that occur, the number of their pixels and
    their share.
    """
    if isinstance(result, Classification):
        entry = {
            'image_id': image_id,
            'category_id': result.label,
            'name': _name(classes, result.label),
            'score': _rounded(result.score),
            'scores': [_rounded(score) for score in result.scores],
        }
        return [entry]
    if isinstance(result, Segmentation):
        return label_map_json(result.labels, classes, image_id)
    return [
        _object_json(result, i, classes, image_id) for i in range(len(result))
    ]


def label_map_json(
    labels: np.ndarray, classes: Sequence[str], image_id: int = 0
) -> list[dict[str, Any]]:
    """The classes that occur in a label map ``(H, W)``, for JSON."""
    found, counts = np.unique(labels, return_counts=True)
    return [
        {
            'image_id': image_id,
            'category_id': int(label),
            'name': _name(classes, int(label)),
            'pixels': int(count),
            'share': _rounded(count / labels.size),
        }
        for label, count in zip(found, counts, strict=True)
    ]


def _object_json(
    result: Detections, index: int, classes: Sequence[str], image_id: int
) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in result.boxes[index])
    label = int(result.labels[index])
    entry = {
        'image_id': image_id,
        'category_id': label,
        'name': _name(classes, int(label)),
        'bbox': [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        'score': _rounded(result.scores[index]),
    }
    if result.patches is not None:
        patch = result.patches[index]
        entry['segmentation'] = patch.run_length(*result.size)
    elif result.raw_masks is not None:
        mask = result.raw_masks[index]
        entry['mask'] = [[_rounded(v) for v in row] for row in mask]
    return entry


def _name(classes: Sequence[str], label: int) -> str:
    """The name of a class, its number if the model has no names."""
    return classes[label] if label < len(classes) else str(label)


def _rounded(value: Any) -> float:
    """As many digits as float32 has."""
    return round(float(value), 6)


def palette_image(
    labels: np.ndarray, palette: Sequence[Sequence[int]]
) -> Image.Image:
    """A label map as an image with a palette, or of 16 bits a pixel."""
    if labels.dtype != np.uint8:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels)
    image.putpalette([value for colour in palette for value in colour])
    return image


# ---- Drawing -----------------------------------------------------------

_OPACITY = 0.5


def draw(
    pixels: np.ndarray,
    result: Result,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Image.Image:
    """Draw a result.

    Args:
        pixels: The picture ``(H, W, 3)``, uint8 RGB.
        result: What the model returned for it.
        classes: Names.
        palette: Colours.
    """
    if isinstance(result, Segmentation):
        colours = np.asarray(palette, np.float32)[result.labels]
        return Image.fromarray(_blend(pixels, colours))
    if isinstance(result, Classification):
        image = Image.fromarray(pixels)
        text = f'{classes[result.label]} {result.score:.2f}'
        _write(ImageDraw.Draw(image), (0, 0), text, (0, 0, 0), image.size)
        return image
    return _draw_objects(pixels, result, classes, palette)


def _draw_objects(
    pixels: np.ndarray,
    result: Detections,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Image.Image:
    colours = [_colour(palette, label) for label in result.labels]
    if result.patches is not None:
        pixels = pixels.copy()
        for patch, colour in zip(result.patches, colours, strict=True):
            height, width = patch.pixels.shape
            view = pixels[patch.top :, patch.left :][:height, :width]
            view[patch.pixels] = _blend(view[patch.pixels], colour)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 300))
    # The most certain last, on top of the others.
    for index in np.argsort(result.scores, kind='stable'):
        box = [float(value) for value in result.boxes[index]]
        canvas.rectangle(box, outline=colours[index], width=line)
        name = classes[result.labels[index]]
        text = f'{name} {result.scores[index]:.2f}'
        corner = box[0], box[1]
        _write(canvas, corner, text, colours[index], image.size)
    return image


def _blend(pixels: np.ndarray, colours: Any) -> np.ndarray:
    mixed = pixels * (1 - _OPACITY) + np.asarray(colours) * _OPACITY
    return mixed.astype(np.uint8)


def _colour(
    palette: Sequence[Sequence[int]], label: int
) -> tuple[int, int, int]:
    red, green, blue = palette[int(label) % len(palette)]
    return red, green, blue


def _write(
    canvas: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """Write on a filled rectangle that stays within the picture."""
    font = _font(max(10, round(min(size) / 40)))
    left, _, right, bottom = canvas.textbbox((0, 0), text, font)
    x = min(max(corner[0], 0), max(size[0] - right, 0))
    y = min(max(corner[1] - bottom, 0), max(size[1] - bottom, 0))
    canvas.rectangle((x + left, y, x + right, y + bottom), fill=colour)
    light = sum(colour) > 3 * 140
    canvas.text((x, y), text, (0, 0, 0) if light else (255,) * 3, font)


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError, OSError):  # pillow without FreeType
        return ImageFont.load_default()


# ---- Engines -----------------------------------------------------------

Arrays = dict[str, np.ndarray]

_OUTPUTS = ('count', 'boxes', 'scores', 'labels', 'masks')


class OnnxRuntime:
    """A model in ONNX Runtime, on the CPU.

    Args:
        path: Its file.
        bf16: Not available.
        threads: Number of threads; 0 for all cores.
    """

    package = 'onnxruntime'

    def __init__(
        self, path: Path, bf16: bool = False, threads: int = 0
    ) -> None:
        runtime = importlib.import_module('onnxruntime')
        if bf16:
            raise ModelError(
                'ONNX Runtime does not compute float32 models in bfloat16: '
                'use OpenVINO'
            )
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = threads
        self._session = runtime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
        self._outputs = [out.name for out in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the model."""
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values, strict=True))


Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of inputs."""

WORTH = 4.0
"""How many times as long as compiling the runs of some shapes must have taken
until a program of their own is compiled. It takes three quarters to nine
tenths of the time, so it pays off when they come as often again."""

MAX_FIXED = 2
"""Such programs that are kept; one has hundreds of MB."""

_MAX_TIMED = 256


class FixedPrograms:
    """Programs for constant shapes, of those that come often.

    Args:
        compile_program: Compiles the model for shapes.
        enough: Seconds that runs of equal shapes must have taken.
    """

    def __init__(
        self, compile_program: Callable[[Shapes], Any], enough: float
    ) -> None:
        self._compile = compile_program
        self._enough = enough
        # Both with the least recently used first.
        self._programs: dict[Shapes, Any] = {}
        self._seconds: dict[Shapes, float] = {}

    def get(self, shapes: Shapes) -> Any:
        """The program for shapes; None if they have none."""
        program = self._programs.pop(shapes, None)
        if program is None:
            if self._seconds.get(shapes, 0.0) <= self._enough:
                return None
            try:
                program = self._compile(shapes)
            except RuntimeError as error:
                # Never again: each picture would wait for it.
                self._seconds[shapes] = -math.inf
                warnings.warn(
                    f'no program for {dict(shapes)} could be compiled, that '
                    f'for any size is used: {error}',
                    stacklevel=2,
                )
                return None
            del self._seconds[shapes]
            _keep_last(self._programs, MAX_FIXED - 1)
        self._programs[shapes] = program
        return program

    def add(self, shapes: Shapes, seconds: float) -> None:
        """Count the time of a run without such a program."""
        self._seconds[shapes] = self._seconds.pop(shapes, 0.0) + seconds
        _keep_last(self._seconds, _MAX_TIMED)


def _keep_last(entries: dict[Shapes, Any], number: int) -> None:
    while len(entries) > number:
        del entries[next(iter(entries))]


def _core_of_process(openvino: Any) -> Any:
    """OpenVINO's core; the same for all models, and never given up.

    Each core that compiles a program sets the stack of signal handlers, and
    sets back what it has found when it is given up. Of two that are given up
    in the order in which they were made, the second sets back the stack of
    the first, which has gone: the next signal ends the process (OpenVINO
    2026.4). It is kept in the package, as each exported folder has a
    predict.py, and a program may load several.
    """
    names = vars(openvino)
    if 'core_of_predict' not in names:
        names['core_of_predict'] = openvino.Core()
    return names['core_of_predict']


class OpenVino:
    """A model in OpenVINO, on the CPU.

    A program for any shapes runs until those of a picture have come often;
    then they get a program of their own, which is faster.

    Args:
        path: Its file.
        bf16: Whether to compute in bfloat16.
        threads: Number of threads; 0 for all cores.
        worth: See ``WORTH``. With 0, the second picture of a size has a
            program of its own.
    """

    package = 'openvino'

    def __init__(
        self,
        path: Path,
        bf16: bool = False,
        threads: int = 0,
        worth: float = WORTH,
    ) -> None:
        openvino = importlib.import_module('openvino')
        # Without the hint, a CPU with bfloat16 instructions uses them.
        self._options: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': 'bf16' if bf16 else 'f32'
        }
        if threads:
            self._options['INFERENCE_NUM_THREADS'] = threads
        start = time.perf_counter()
        self._core = _core_of_process(openvino)
        self._model = self._core.read_model(str(path))
        # A tensor may have the names of inner nodes as well.
        self._outputs = [
            next((n for n in out.get_names() if n in _OUTPUTS), out.any_name)
            for out in self._model.outputs
        ]
        self._request = self._compiled(self._model)
        enough = worth * (time.perf_counter() - start)
        if all(entry.partial_shape.is_static for entry in self._model.inputs):
            enough = math.inf
        self._fixed = FixedPrograms(self._compiled_for, enough)

    def _compiled(self, model: Any) -> Any:
        compiled = self._core.compile_model(model, 'CPU', self._options)
        return compiled.create_infer_request()

    def _compiled_for(self, shapes: Shapes) -> Any:
        model = self._model.clone()
        model.reshape({name: list(shape) for name, shape in shapes})
        return self._compiled(model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the model."""
        inputs = dict(inputs)
        shapes = tuple((name, value.shape) for name, value in inputs.items())
        request = self._fixed.get(shapes)
        if request is None:
            request = self._request
            start = time.perf_counter()
            request.infer(inputs)
            self._fixed.add(shapes, time.perf_counter() - start)
        else:
            request.infer(inputs)
        # The next call overwrites the request's memory.
        return {
            name: request.get_output_tensor(index).data.copy()
            for index, name in enumerate(self._outputs)
        }


Engine = OnnxRuntime | OpenVino
ENGINES: dict[str, type[Engine]] = {
    'openvino': OpenVino,
    'onnxruntime': OnnxRuntime,
}
_FILES = {'openvino': 'openvino', 'onnxruntime': 'onnx'}


def _load_engine(
    folder: Path, files: Mapping[str, Any], name: str | None, bf16: bool
) -> Engine:
    """The requested engine, or the first one whose file and package exist."""
    if name is not None and name not in ENGINES:
        raise ModelError(f'engine {name!r}: expected {" or ".join(ENGINES)}')
    names = [name] if name else [n for n in ENGINES if _FILES[n] in files]
    problems = []
    for candidate in names:
        entry = files.get(_FILES[candidate])
        if entry is None:
            raise ModelError(
                f'{folder} has no file for {candidate}: export it with '
                f'--format {_FILES[candidate]}'
            )
        try:
            importlib.import_module(ENGINES[candidate].package)
        except ImportError as error:
            problems.append(f'{candidate} ({error})')
            continue
        path = checked_file(folder, entry)
        try:
            return ENGINES[candidate](path, bf16)
        except ModelError:
            raise
        # Engines raise their own kinds of errors for a broken file.
        except Exception as error:
            raise ModelError(
                f'{path}: {candidate} cannot load it ({_reason(error)})'
            ) from error
    packages = ' or '.join(ENGINES[n].package for n in names)
    raise ModelError(
        f'{folder} cannot be run, as these cannot be imported: '
        f'{", ".join(problems) or "none"}. Install: pip install {packages}'
    )


def checked_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The model's file, compared with the checksums of ``model.json``.

    Raises:
        ModelError: It is missing, or was changed.
    """
    path = folder / entry['file']
    pairs = [(path, entry.get('sha256'))]
    if entry.get('weights'):
        weights = folder / entry['weights']
        pairs.append((weights, entry.get('weights_sha256')))
    for file, expected in pairs:
        if not file.is_file():
            raise ModelError(f'{file} is missing: export the model again')
        if expected and _sha256(file) != expected:
            raise ModelError(
                f'{file} was changed after the export: its SHA-256 is not '
                'the one in model.json. Export the model again'
            )
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---- The model ---------------------------------------------------------


def load(
    folder: str | Path, engine: str | None = None, bf16: bool = False
) -> 'Model':
    """Load an exported model.

    Args:
        folder: The exported folder.
        engine: ``'openvino'`` or ``'onnxruntime'``; by default the first of
            them that is installed and whose file is there.
        bf16: Whether to compute in bfloat16, with OpenVINO.

    Raises:
        ModelError: The folder or the engine cannot be used.
    """
    return Model(folder, engine, bf16)


class Model:
    """An exported classifier, detector or segmentor.

    Not for several threads at the same time.

    Args:
        folder: As :func:`load`.
        engine: As :func:`load`.
        bf16: As :func:`load`.

    Attributes:
        info: The content of ``model.json``.
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        classes: Names.
        palette: Colours.
        masks: Settings of the masks; empty if there are none.
        engine: Name of the engine.
    """

    def __init__(
        self,
        folder: str | Path,
        engine: str | None = None,
        bf16: bool = False,
    ) -> None:
        folder = Path(folder)
        self.info = read_info(folder)
        self.task: str = self.info['task']
        self.classes: list[str] = self.info['classes']
        self.palette = self.info['palette'] or colours(len(self.classes))
        self.masks: dict[str, Any] = self.info.get('masks') or {}
        self._input = self.info['input']
        self._engine = _load_engine(folder, self.info['files'], engine, bf16)
        self.engine = self._engine.package

    def __call__(self, images: Any, batch_size: int = 1) -> Any:
        """Predict.

        Args:
            images: What :func:`read_picture` takes, or a list of it.
            batch_size: Maximum number of pictures in a run of the engine.
                Only pictures that need no further padding run together, so
                the results do not depend on it.

        Returns:
            A result, or a list of them.

        Raises:
            PictureError: A picture cannot be read or predicted.
        """
        if not isinstance(images, list | tuple):
            return self([images])[0]
        prepared = [self.prepare(read_picture(image)) for image in images]
        results: dict[int, Result] = {}
        for batch in self._batches(prepared, batch_size):
            found = self.predict([prepared[i] for i in batch])
            results.update(zip(batch, found, strict=True))
        return [results[i] for i in range(len(images))]

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Resize and crop a picture as the model's test pipeline does.

        With a model of fixed height and width, detectors' pictures are
        resized to fit in, others to this size.

        Args:
            pixels: ``(H, W, 3)``, uint8 RGB.
        """
        size = pixels.shape[0], pixels.shape[1]
        fixed = self._fixed_size()
        steps = self._input['steps']
        if fixed is None or self.task == 'detection':
            pixels = apply_steps(pixels, steps, fixed)
        else:
            pixels = apply_steps(pixels, steps)
            pixels = resize_bilinear(pixels, fixed[1], fixed[0])
        if fixed and any(
            n > most for n, most in zip(pixels.shape, fixed, strict=False)
        ):
            pixels = _resize(
                pixels, {'scale': fixed, 'keep_ratio': True}, fixed
            )
        return Prepared(pixels, size)

    def _fixed_size(self) -> tuple[int, int] | None:
        height, width = self._input['height'], self._input['width']
        return (height, width) if height and width else None

    def key(self, prepared: Prepared) -> tuple[int, ...]:
        """Pictures with equal keys may run together with equal results."""
        height, width = prepared.pixels.shape[:2]
        if self.task == 'detection':
            # The model pads to this size anyhow.
            divisor = self._input.get('divisor') or 1
            return _up(height, divisor), _up(width, divisor)
        if self.task == 'segmentation':
            return height, width, *prepared.size
        return height, width

    def _batches(
        self, prepared: Sequence[Prepared], most: int
    ) -> Iterator[list[int]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(prepared):
            groups.setdefault(self.key(picture), []).append(index)
        for group in groups.values():
            for start in range(0, len(group), most):
                yield group[start : start + most]

    def predict(self, batch: Sequence[Prepared]) -> list[Result]:
        """Predict pictures with equal keys."""
        pixels = [picture.pixels for picture in batch]
        if self.task == 'detection':
            return list(
                self.detections(
                    self.run(pixels),
                    [picture.size for picture in batch],
                    [picture.scale for picture in batch],
                )
            )
        if self.task == 'segmentation':
            outputs = self.run(pixels, batch[0].size)
            self._check_finite(outputs['scores'])
            return [
                Segmentation(picture.size, labels, scores)
                for picture, labels, scores in zip(
                    batch, outputs['labels'], outputs['scores'], strict=True
                )
            ]
        outputs = self.run(pixels)
        self._check_finite(outputs['scores'])
        return [
            Classification(picture.size, scores)
            for picture, scores in zip(batch, outputs['scores'], strict=True)
        ]

    def _check_finite(self, scores: np.ndarray) -> None:
        """Refuse scores that JSON cannot hold."""
        if not np.isfinite(scores).all():
            raise PictureError(
                f'{self.engine} returned scores that are not finite numbers'
            )

    def run(
        self,
        pictures: Sequence[np.ndarray],
        target_size: tuple[int, int] | None = None,
    ) -> Arrays:
        """Run the engine on prepared pictures.

        Args:
            pictures: Each ``(h, w, 3)``, uint8 RGB. Those of detectors may
                differ in size; they are padded at the bottom and the right.
            target_size: Height and width of the label maps.

        Returns:
            The outputs by name, a row for each picture.

        Raises:
            PictureError: The engine fails, or the model's fixed size is
                another one.
        """
        chunk = self._input['batch'] or len(pictures)
        parts = [
            self._run(pictures[start : start + chunk], target_size)
            for start in range(0, len(pictures), chunk)
        ]
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }

    def _run(
        self,
        pictures: Sequence[np.ndarray],
        target_size: tuple[int, int] | None,
    ) -> Arrays:
        inputs = {'images': self._stack(pictures)}
        count = len(inputs['images'])
        if self.task == 'detection':
            sizes = [picture.shape[:2] for picture in pictures]
            sizes += [sizes[0]] * (count - len(sizes))
            inputs['sizes'] = np.array(sizes, np.int64)
        elif self.task == 'segmentation':
            inputs['target_size'] = np.array(target_size, np.int64)
        try:
            outputs = self._engine(inputs)
        # The engines' errors have a common base only in RuntimeError, or not
        # even that; which sizes work is not known here.
        except Exception as error:
            shape = ' x '.join(str(n) for n in inputs['images'].shape[1:3])
            raise PictureError(
                f'{self.engine} failed on a picture of {shape} pixels '
                f'({type(error).__name__}: {_reason(error)[:200]})'
            ) from error
        return {name: out[: len(pictures)] for name, out in outputs.items()}

    def _stack(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """A batch, padded with zeros."""
        height = max(picture.shape[0] for picture in pictures)
        width = max(picture.shape[1] for picture in pictures)
        fixed = self._fixed_size()
        different = fixed not in (None, (height, width))
        if fixed is not None and different:
            fits = height <= fixed[0] and width <= fixed[1]
            if self.task != 'detection' or not fits:
                raise PictureError(
                    f'a picture of {height} x {width} pixels: the model was '
                    f'exported for {fixed[0]} x {fixed[1]}'
                )
            height, width = fixed
        count = self._input['batch'] or len(pictures)
        shape = count, height, width, 3
        equal = all(picture.shape == shape[1:] for picture in pictures)
        if equal and count == len(pictures):
            return np.stack(pictures)
        batch = np.zeros(shape, np.uint8)
        for row, picture in zip(batch, pictures, strict=False):
            row[: picture.shape[0], : picture.shape[1]] = picture
        return batch

    def detections(
        self,
        outputs: Arrays,
        sizes: Sequence[tuple[int, int]],
        scales: Sequence[tuple[float, float]],
    ) -> list[Detections]:
        """Objects in the original pictures from the outputs of a batch.

        Args:
            outputs: What :meth:`run` returned.
            sizes: Height and width of each original picture.
            scales: Factors of width and height of each prepared picture.

        Raises:
            PictureError: A box or a score is not a finite number.
        """
        results = []
        for index, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
            found = slice(int(outputs['count'][index]))
            boxes = outputs['boxes'][index, found]
            boxes = boxes / np.array([*scale, *scale], np.float32)
            scores = outputs['scores'][index, found]
            if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
                raise PictureError(
                    f'{self.engine} returned objects whose box or score is '
                    f'not a finite number for a picture of {size[0]} x '
                    f'{size[1]} pixels'
                )
            raw = outputs['masks'][index, found] if self.masks else None
            results.append(
                Detections(
                    size,
                    boxes,
                    scores,
                    outputs['labels'][index, found],
                    raw,
                    self._paste(raw, boxes, size),
                )
            )
        return results

    def _paste(
        self,
        masks: np.ndarray | None,
        boxes: np.ndarray,
        size: tuple[int, int],
    ) -> Patches | None:
        if masks is None or not self.masks['paste']:
            return None
        return Patches(masks, boxes, size, self.masks['threshold'])

    def draw(
        self,
        image: Any,
        result: Result,
        score_thr: float | None = None,
    ) -> Image.Image:
        """Draw a result.

        Args:
            image: What :func:`read_picture` takes.
            result: What the model returned for it.
            score_thr: Minimum score of objects; that of the export if not
                set.
        """
        if isinstance(result, Detections):
            if score_thr is None:
                score_thr = self.info['thresholds']['score']
            result = result.above(cast(float, score_thr))
        pixels = read_picture(image)
        return draw(pixels, result, self.classes, self.palette)


def colours(count: int) -> list[tuple[int, ...]]:
    """Colours of classes without a palette: hues far from each other."""
    # Steps of the golden ratio never come close to an earlier hue.
    hues = (index * 0.618034 % 1 for index in range(count))
    return [
        tuple(int(value * 255) for value in colorsys.hsv_to_rgb(hue, 0.8, 0.9))
        for hue in hues
    ]


def read_info(folder: Path) -> dict[str, Any]:
    """The content of ``model.json``, checked.

    Raises:
        ModelError: It is missing, broken, or of another version.
    """
    path = folder / 'model.json'
    if not path.is_file():
        raise ModelError(
            f'{folder} is not an exported model: there is no {path.name}. '
            'Name a folder that tools/export.py has written'
        )
    try:
        info = json.loads(path.read_text('utf-8'))
        version = info['format_version']
        known = info['task'] in ('classification', 'detection', 'segmentation')
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f'{path} cannot be read ({type(error).__name__}: {error}): '
            'export the model again'
        ) from error
    if version != FORMAT_VERSION or not known:
        raise ModelError(
            f'{path} has format {version} and task {info["task"]!r}, unknown '
            f'to this file (format {FORMAT_VERSION}): use predict.py of the '
            'same folder'
        )
    try:
        _check_keys(info, path)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f'{path} is not complete ({type(error).__name__}: {error}): '
            'export the model again'
        ) from error
    return info


_STEP_KEYS = {
    'resize': 'scale',
    'resize_edge': 'scale',
    'center_crop': 'size',
    'resize_to_multiple': 'divisor',
}


def _check_keys(info: Mapping[str, Any], path: Path) -> None:
    """Raise a KeyError for a key that is needed and missing."""
    for key in ('classes', 'palette'):
        info[key]
    for key in ('batch', 'height', 'width'):
        info['input'][key]
    for entry in info['files'].values():
        entry['file']
    for key in ('paste', 'threshold') if info.get('masks') else ():
        info['masks'][key]
    if info['task'] == 'detection':
        info['thresholds']['score']
    for step in info['input']['steps']:
        _check_step(step, path)
        step[_STEP_KEYS[step['step']]]


def _check_step(step: Mapping[str, Any], path: Path) -> None:
    if step['step'] not in ('resize', *_STEPS):
        raise ModelError(f'{path}: unknown step {step["step"]!r}')
    kind = step.get('interpolation', 'bilinear')
    if step.get('backend', 'cv2') == 'pillow':
        known: Iterable[str] = _PILLOW_FILTERS
    else:
        known = ('bilinear',)
    if kind not in known:
        raise ModelError(
            f'{path}: {step["step"]} with {kind} interpolation is not '
            f'supported, only {", ".join(known)}'
        )


# ---- Command line ------------------------------------------------------


def find_pictures(inputs: Iterable[str]) -> dict[Path, Path]:
    """List pictures; folders are searched recursively.

    Returns:
        For each file the name of its drawing, relative to the folder of the
        drawings and unique.
    """
    files: dict[Path, Path] = {}
    for item in inputs:
        root = Path(item)
        found = [root]
        if root.is_dir():
            found = sorted(
                path
                for path in root.rglob('*')
                if path.suffix.lower() in IMAGE_SUFFIXES
            )
        base = root if root.is_dir() else root.parent
        files.update((path, path.relative_to(base)) for path in found)
    used: set[Path] = set()
    for path, name in files.items():
        if name.suffix.lower() not in ('.jpg', '.jpeg', '.png'):
            name = name.with_name(name.name + '.png')
        while name in used:
            name = name.with_stem(f'{name.stem}_')
        used.add(name)
        files[path] = name
    return files


class _Writer:
    """Writes drawings, label maps and the JSON of a run."""

    def __init__(self, model: Model, args: argparse.Namespace) -> None:
        self._model = model
        self._out: Path | None = args.out
        self._json: Path | None = args.json
        self._score_thr: float | None = args.score_thr
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._failed: list[dict[str, str]] = []
        for folder in (self._out, self._json and self._json.parent):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)

    def overwritten(self, files: Mapping[Path, Path]) -> Path | None:
        """The first input that an output would overwrite."""
        inputs = {path.resolve(): path for path in files}
        targets = [] if self._json is None else [self._json]
        if self._out is not None:
            targets += [self._out / name for name in files.values()]
        if self._json is not None and self._model.task == 'segmentation':
            targets += [
                self._json.parent / self._label_map(name)
                for name in files.values()
            ]
        found = (inputs.get(target.resolve()) for target in targets)
        return next((path for path in found if path is not None), None)

    def add(
        self, path: Path, name: Path, pixels: np.ndarray, result: Result
    ) -> None:
        """Write what belongs to a picture."""
        if self._out is not None:
            target = self._out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._model.draw(pixels, result, self._score_thr).save(target)
        if self._json is not None:
            self._add_json(path, name, result)
        print(f'{path}: {_summary(result, self._model.classes)}', flush=True)

    def fail(self, path: Path, error: str) -> None:
        """Record a picture that cannot be predicted."""
        self._failed.append({'file_name': str(path), 'error': error})
        print(f'failed: {path}: {error}', file=sys.stderr, flush=True)

    def _add_json(self, path: Path, name: Path, result: Result) -> None:
        height, width = result.size
        entry: dict[str, Any] = {'id': len(self._images)}
        entry.update(file_name=str(path), width=width, height=height)
        if isinstance(result, Detections) and self._score_thr is not None:
            result = result.above(self._score_thr)
        if isinstance(result, Segmentation):
            entry['label_map'] = self._save_labels(name, result)
        results = as_json(result, self._model.classes, entry['id'])
        self._images.append(entry)
        self._results += results

    def _label_map(self, name: Path) -> Path:
        """The file of a label map, relative to the folder of the JSON."""
        assert self._json is not None
        return Path(f'{self._json.stem}_labels') / f'{name}.png'

    def _save_labels(self, name: Path, result: Segmentation) -> str:
        """Write a label map into a folder beside the JSON."""
        assert self._json is not None
        file = self._label_map(name)
        target = self._json.parent / file
        target.parent.mkdir(parents=True, exist_ok=True)
        palette_image(result.labels, self._model.palette).save(target)
        return file.as_posix()

    def close(self) -> None:
        """Write the JSON."""
        if self._json is None:
            return
        content = {
            'task': self._model.task,
            'classes': self._model.classes,
            'images': self._images,
            'results': self._results,
            'failed': self._failed,
        }
        self._json.write_text(json.dumps(content), 'utf-8')


def _summary(result: Result, classes: Sequence[str]) -> str:
    if isinstance(result, Classification):
        return f'{classes[result.label]} {result.score:.3f}'
    if isinstance(result, Segmentation):
        labels = np.unique(result.labels)
        return ', '.join(classes[label] for label in labels)
    return f'{len(result)} objects'


def _parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Predict pictures.')
    parser.add_argument('inputs', nargs='+', help='pictures, folders of them')
    parser.add_argument('--out', type=Path, help='folder for drawings')
    parser.add_argument('--json', type=Path, help='file for the results')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='minimum score of objects; by default that of the export in '
        'drawings, and none in the JSON',
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='pictures in a run'
    )
    parser.add_argument('--engine', choices=list(ENGINES))
    parser.add_argument(
        '--bf16', action='store_true', help='compute in bfloat16 (OpenVINO)'
    )
    parser.add_argument(
        '--model',
        type=Path,
        default=Path(__file__).resolve().parent,
        help='the exported folder; that of this file if not set',
    )
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    return args


def _predict_files(
    model: Model, files: Mapping[Path, Path], batch_size: int
) -> Iterator[tuple[Path, np.ndarray | None, Result | str]]:
    """Predict pictures, a batch in memory.

    Yields:
        The file, the picture and its result, or no picture and the error.
    """
    paths = list(files)
    for start in range(0, len(paths), batch_size):
        pictures: dict[Path, np.ndarray] = {}
        for path in paths[start : start + batch_size]:
            try:
                pictures[path] = read_picture(path)
            except PictureError as error:
                yield path, None, str(error)
        try:
            results = model(list(pictures.values()), batch_size)
        except PictureError:
            # Which of them it was is not known.
            results = [_result_or_error(model, p) for p in pictures.values()]
        for (path, pixels), result in zip(
            pictures.items(), results, strict=True
        ):
            yield path, pixels, result


def _result_or_error(model: Model, pixels: np.ndarray) -> Result | str:
    try:
        return model(pixels)
    except PictureError as error:
        return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict the inputs; the exit status is 1 if some failed."""
    args = _parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A file name may have characters that the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        return _predict_inputs(args)
    # An OSError is a full disk, or a folder that cannot be written.
    except (ModelError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


def _predict_inputs(args: argparse.Namespace) -> int:
    model = load(args.model, args.engine, args.bf16)
    files = find_pictures(args.inputs)
    writer = _Writer(model, args)
    original = writer.overwritten(files)
    if original is not None:
        raise ModelError(
            f'{original} is an input that the results would overwrite: name '
            'another folder with --out, or another file with --json'
        )
    failed = 0
    # Whatever ends the run, the results so far are written.
    with contextlib.closing(writer):
        for path, pixels, result in _predict_files(
            model, files, args.batch_size
        ):
            if pixels is None or isinstance(result, str):
                failed += 1
                writer.fail(path, str(result))
            else:
                writer.add(path, files[path], pixels, result)
    print(f'{len(files) - failed} predicted, {failed} failed')
    return 1 if failed or not files else 0


if __name__ == '__main__':
    sys.exit(main())

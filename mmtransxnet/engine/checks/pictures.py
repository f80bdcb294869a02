"""Checks of a picture and its annotation.

The loaders of a run, ``tools/dataset/check.py`` and ``tools/infer.py`` share
them. They inspect the header and the end of a file before anything large is
allocated; on request, the picture is decoded as well.
"""

import os
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmtransxnet.engine.checks.dataset_types import Loading
from mmtransxnet.utils.text import first_few

IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.ppm'),
    *('.pgm', '.pbm', '.pnm', '.tif', '.tiff', '.jp2'),
)

MAX_RATIO = 100
"""Maximum ratio of a picture's longer to its shorter side. Resized to 800
pixels on the short side, a picture of 1 x 20000 would have 38 GB."""

# Decoders of other formats should not run on untrusted files (EPS starts
# Ghostscript), and OpenCV does not read them.
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

_PNG_END = b'IEND\xaeB\x60\x82'
_JPEG_END = b'\xff\xd9'
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_ON_ITS_SIDE = (5, 6, 7, 8)


class CorruptSampleError(ValueError):
    """A corrupt picture or annotation; the message gives the reason."""


@dataclass(frozen=True)
class Sample:
    """A picture and its annotation.

    Attributes:
        picture: Path of the picture.
        size: Annotated width and height in pixels, None if unknown.
        label_map: Path of its label map, None if there is none.
        labels: Values that may occur in the label map's file, None for any.
    """

    picture: str
    size: tuple[int, int] | None = None
    label_map: str | None = None
    labels: frozenset[int] | None = None


def sample_of(info: Any, loading: Loading) -> Sample | None:
    """Return what can be checked of a sample of a data set.

    Args:
        info: What ``get_data_info`` of the data set returns.
        loading: How the data set loads it.

    Returns:
        None if it cannot be checked: the sample is not a picture on a local
        disk (``s3://``, a video, an array), or is decoded by other means.
    """
    if not loading.decoded or not isinstance(info, Mapping):
        return None
    path = info.get('img_path')
    if not isinstance(path, str) or '://' in path:
        return None
    size = None
    width, height = info.get('width'), info.get('height')
    # Some annotation programs write 0 for an unknown size.
    if loading.sizes and 'instances' in info and width and height:
        size = width, height
    label_map = info.get('seg_map_path')
    if not loading.label_maps or not isinstance(label_map, str):
        return Sample(path, size)
    return Sample(path, size, label_map, _labels_of(info, loading))


def _labels_of(
    info: Mapping[str, Any], loading: Loading
) -> frozenset[int] | None:
    """Values that may occur in the file of a label map; None for any."""
    # With a subset of classes, the file still has the indices of all.
    known = set(info.get('label_map') or range(loading.classes))
    if not known:
        return None
    known |= loading.ignored
    if info.get('reduce_zero_label'):
        known = {0, *(label + 1 for label in known - {255})}
    return frozenset({*known, 255})


def check_sample(sample: Sample, decode: bool = False) -> None:
    """Check a picture and its annotation.

    Args:
        sample: The picture and its annotation.
        decode: Whether to decode the picture completely.

    Raises:
        CorruptSampleError: The picture or its annotation is corrupt.
    """
    size = check_picture(sample.picture, decode)
    if sample.size not in (None, size):
        raise CorruptSampleError(
            f'{sample.picture} has {_pixels(size)} pixels once it is upright '
            f'and was annotated as {_pixels(sample.size)}'
        )
    if sample.label_map is not None:
        _check_label_map(sample.label_map, size, sample.labels)


def check_picture(
    path: str, decode: bool = False, max_pixels: int | None = None
) -> tuple[int, int]:
    """Check a picture.

    Args:
        path: Its file.
        decode: Whether to decode it completely, instead of checking only the
            header and the end of the file.
        max_pixels: Maximum width x height, for pictures from strangers. The
            header decides, before pixels are decoded; formats that only
            OpenCV reads, which decodes at once, are then refused.

    Returns:
        Width and height in pixels after the EXIF rotation, as the libraries
        read it.

    Raises:
        CorruptSampleError: It is missing, not a picture, incomplete, or of a
            size that no pipeline can handle.
    """
    with _named_errors(path), open(path, 'rb') as file:
        try:
            image = _open(path, file, max_pixels)
        except UnidentifiedImageError:
            readable = max_pixels is None and cv2.haveImageReader(path)
            opened = mmcv.imread(path) if readable else None
            if opened is None:
                raise
            # Formats that only OpenCV reads: TIFF with three channels of
            # float32, PFM, HDR, Sun raster.
            return opened.shape[1], opened.shape[0]
        size = _upright_size(path, image)
        if decode or not _has_end_marker(file, image.format):
            image.load()
    if decode:
        with _named_errors(path):
            if mmcv.imread(path) is None:
                raise ValueError(f'OpenCV cannot read this {image.format}')
    return size


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Turn exceptions into an error that names the file."""
    try:
        with warnings.catch_warnings():
            # Warnings about files that Pillow can read nevertheless.
            warnings.simplefilter('ignore')
            yield
    except CorruptSampleError:
        raise
    except FileNotFoundError:
        raise CorruptSampleError(f'{path} does not exist') from None
    except Image.DecompressionBombError as error:
        raise CorruptSampleError(f'{path} is too large ({error})') from error
    # Pillow raises many kinds of errors for a broken file.
    except Exception as error:
        if os.path.isfile(path) and not os.path.getsize(path):
            raise CorruptSampleError(f'{path} is empty') from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorruptSampleError(
            f'{path} cannot be decoded ({reason})'
        ) from error


def _open(
    path: str, file: BinaryIO, max_pixels: int | None = None
) -> Image.Image:
    """Read the header of a picture; raises for decompression bombs."""
    image = Image.open(file, formats=_FORMATS)
    short, long = sorted(image.size)
    if long > MAX_RATIO * short:
        raise CorruptSampleError(
            f'{path} has {_pixels(image.size)} pixels: one side is more than '
            f'{MAX_RATIO} times the other'
        )
    if max_pixels is not None and short * long > max_pixels:
        raise CorruptSampleError(
            f'{path} has {_pixels(image.size)} pixels, more than {max_pixels}'
        )
    return image


def _has_end_marker(file: BinaryIO, format_name: str | None) -> bool:
    """Whether a picture has its end marker; False if unknown."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 64))
    tail = file.read().rstrip(b'\0')
    if format_name == 'PNG':
        return tail.endswith(_PNG_END)
    return format_name in ('JPEG', 'MPO') and tail.endswith(_JPEG_END)


def _upright_size(path: str, image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that OpenCV reads from EXIF."""
    # In a PNG, Pillow would also read it from behind the pixels.
    if image.format == 'PNG' and 'exif' not in image.info:
        return image.size
    orientation = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
    if image.format == 'WEBP' and orientation != _UPRIGHT:
        raise CorruptSampleError(
            f'{path} is a WEBP with an EXIF rotation, which OpenCV does not '
            'apply: store it upright'
        )
    width, height = image.size
    return (height, width) if orientation in _ON_ITS_SIDE else (width, height)


def _check_label_map(
    path: str, size: tuple[int, int], labels: Container[int] | None
) -> None:
    with _named_errors(path), open(path, 'rb') as file:
        # mmseg does not rotate label maps.
        image = _open(path, file)
        values = np.array(image)
    if values.ndim != 2:
        raise CorruptSampleError(
            f'{path} has {values.shape[2]} channels; a label map has one'
        )
    if image.size != size:
        raise CorruptSampleError(
            f'{path} has {_pixels(image.size)} pixels, its picture '
            f'{_pixels(size)} once it is upright'
        )
    if 1 in size:
        raise CorruptSampleError(
            f'{path} has {_pixels(size)} pixels: mmseg cannot read a side of '
            'one pixel'
        )
    if labels is None:
        return
    unknown = [value for value in _values_of(values) if value not in labels]
    if unknown:
        shown = first_few([str(value) for value in unknown])
        raise CorruptSampleError(f'{path} has unknown labels: {shown}')


def _values_of(values: np.ndarray) -> list[int]:
    """The distinct values, sorted."""
    if values.dtype == np.uint8:  # several times as fast as sorting
        return np.flatnonzero(np.bincount(values.ravel())).tolist()
    return np.unique(values).tolist()


def _pixels(size: Sequence[int]) -> str:
    return f'{size[0]} x {size[1]}'

"""Is a picture with its annotation fit to be learned from?

One check for all: the loaders of a run, ``tools/dataset/check.py`` and
``tools/infer.py`` use it. It looks at the header and the end of a file before
anything large is allocated; where there is time, all of it is decoded, too.
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

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif')

MAX_RATIO = 100
"""Longer side by shorter side of a picture. Resized to 800 pixels on the
short side, a picture of 1 x 20000 would have 38 GB."""

# Others have code that should not run on what strangers send (EPS starts
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
    """A picture or annotation that is unfit, named with the reason."""


@dataclass(frozen=True)
class Sample:
    """What is to be checked.

    Attributes:
        picture: Path of the picture.
        size: Its width and height in pixels as annotated, None if unknown.
        label_map: Path of its label map, None if there is none.
        labels: Values that may occur in the label map's file, None for any.
    """

    picture: str
    size: tuple[int, int] | None = None
    label_map: str | None = None
    labels: frozenset[int] | None = None


def sample_of(info: Any, loading: Loading) -> Sample | None:
    """What of a sample of a data set is to be checked.

    Args:
        info: What ``get_data_info`` of the data set returns.
        loading: What is known of how the data set loads it.

    Returns:
        None where no file is known to be unfit: the sample is not one picture
        on a disk (``s3://``, a video, an array), or decoded by other means.
    """
    if not loading.decoded or not isinstance(info, Mapping):
        return None
    path = info.get('img_path')
    if not isinstance(path, str) or '://' in path:
        return None
    size = None
    width, height = info.get('width'), info.get('height')
    # Programs that draw boxes write 0 where they do not know it.
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
    # Some classes only: their numbers in the file are those of all.
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
        sample: What to check.
        decode: Whether to decode all of the picture.

    Raises:
        CorruptSampleError: It is unfit.
    """
    size = check_picture(sample.picture, decode)
    if sample.size not in (None, size):
        raise CorruptSampleError(
            f'{sample.picture} has {_pixels(size)} pixels once it is upright '
            f'and was annotated as {_pixels(sample.size)}'
        )
    if sample.label_map is not None:
        _check_label_map(sample.label_map, size, sample.labels)


def check_picture(path: str, decode: bool = False) -> tuple[int, int]:
    """Check a picture.

    Args:
        path: Its file.
        decode: Whether to decode all of it, not only to look at its header
            and whether it ends as its format does.

    Returns:
        Width and height in pixels as the libraries see it, that is upright.

    Raises:
        CorruptSampleError: It is missing, no picture, not whole, or of a size
            that no pipeline can handle.
    """
    with _named_errors(path), open(path, 'rb') as file:
        try:
            image = _open(path, file)
        except UnidentifiedImageError:
            opened = mmcv.imread(path) if cv2.haveImageReader(path) else None
            if opened is None:
                raise
            # The libraries' own reader alone knows it: TIFF with three
            # channels of float32, PFM, HDR, Sun raster.
            return opened.shape[1], opened.shape[0]
        size = _upright_size(path, image)
        if decode or not _is_whole(file, image.format):
            image.load()
    if decode:
        with _named_errors(path):
            if mmcv.imread(path) is None:
                raise ValueError(f'OpenCV reads no such {image.format}')
    return size


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Say in a line what is wrong with a file."""
    try:
        with warnings.catch_warnings():
            # Of what Pillow can read after all.
            warnings.simplefilter('ignore')
            yield
    except CorruptSampleError:
        raise
    except FileNotFoundError:
        raise CorruptSampleError(f'{path} does not exist') from None
    except Image.DecompressionBombError as error:
        raise CorruptSampleError(f'{path} is too large ({error})') from error
    # Pillow raises almost anything for a broken file.
    except Exception as error:
        if os.path.isfile(path) and not os.path.getsize(path):
            raise CorruptSampleError(f'{path} is empty') from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorruptSampleError(
            f'{path} cannot be decoded ({reason})'
        ) from error


def _open(path: str, file: BinaryIO) -> Image.Image:
    """Read the header of a picture; Pillow refuses bombs here."""
    image = Image.open(file, formats=_FORMATS)
    short, long = sorted(image.size)
    if long > MAX_RATIO * short:
        raise CorruptSampleError(
            f'{path} has {_pixels(image.size)} pixels: one side is more than '
            f'{MAX_RATIO} times the other'
        )
    return image


def _is_whole(file: BinaryIO, format_name: str | None) -> bool:
    """Whether a picture has its end; False if this is not to be seen."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 64))
    tail = file.read().rstrip(b'\0')
    if format_name == 'PNG':
        return tail.endswith(_PNG_END)
    return format_name in ('JPEG', 'MPO') and tail.endswith(_JPEG_END)


def _upright_size(path: str, image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that OpenCV reads from EXIF."""
    # Pillow would look for it behind the pixels of a PNG, too.
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
        # mmseg does not turn label maps.
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
            f'{path} has {_pixels(size)} pixels: mmseg takes a side of one '
            'pixel for no side'
        )
    if labels is None:
        return
    unknown = [value for value in _values_of(values) if value not in labels]
    if unknown:
        shown = first_few([str(value) for value in unknown])
        raise CorruptSampleError(f'{path} has unknown labels: {shown}')


def _values_of(values: np.ndarray) -> list[int]:
    """Which values occur, sorted."""
    if values.dtype == np.uint8:  # several times as fast as sorting
        return np.flatnonzero(np.bincount(values.ravel())).tolist()
    return np.unique(values).tolist()


def _pixels(size: Sequence[int]) -> str:
    return f'{size[0]} x {size[1]}'

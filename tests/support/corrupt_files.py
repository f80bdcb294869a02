"""Pictures that are broken, hostile or of an unusual kind."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def upright(side=96):
    """A picture without symmetry, RGB (side, side, 3)."""
    small = np.random.default_rng(0).integers(0, 255, (5, 5, 3), 'uint8')
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def encoded(image, kind, **options):
    """A picture as a file of some kind."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind, orientation=6):
    """The upright picture, stored on its side with EXIF saying so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.rot90(upright())  # 6: to be turned clockwise
    return encoded(stored, kind, exif=exif)


def bomb():
    """A PNG of a hundred bytes that declares 60000 x 60000 pixels."""

    def chunk(name, data):
        check = struct.pack('>I', zlib.crc32(name + data))
        return struct.pack('>I', len(data)) + name + data + check

    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    return b''.join(
        [
            b'\x89PNG\r\n\x1a\n',
            chunk(b'IHDR', header),
            chunk(b'IDAT', zlib.compress(bytes(64))),
            chunk(b'IEND', b''),
        ]
    )


def damaged():
    """A PNG that has its end, and rubbish in its middle."""
    content = bytearray(encoded(upright(), 'PNG'))
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    return bytes(content)


def half(content):
    return content[: len(content) // 2]


JPEG = encoded(upright(), 'JPEG', quality=95)

# What the file has, and what is told of it.
BAD = {
    'empty': (b'', 'is empty'),
    'text': (b'not a picture', 'cannot be decoded (cannot identify'),
    'truncated JPEG': (half(JPEG), 'cannot be decoded (image file is trunc'),
    'truncated PNG': (half(encoded(upright(), 'PNG')), 'cannot be decoded'),
    'truncated BMP': (half(encoded(upright(), 'BMP')), 'cannot be decoded'),
    'damaged PNG': (damaged(), 'cannot be decoded'),
    'bomb': (bomb(), 'is too large (Image size (3600000000 pixels) exceeds'),
    '1 x 20000': (
        encoded(Image.new('RGB', (1, 20_000)), 'PNG'),
        'has 1 x 20000 pixels: one side is more than 100 times the other',
    ),
    'PostScript': (
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
        'cannot be decoded (cannot identify',
    ),
    'turned WEBP': (turned('WEBP'), 'WEBP with an EXIF rotation'),
}

_GREY = upright()[..., 0]
_GREY_AS_RGB = np.dstack([_GREY] * 3)

# What the file has, and what must be read: RGB (H, W, 3).
GOOD = {
    'grey': (encoded(_GREY, 'PNG'), _GREY_AS_RGB),
    'CMYK JPEG': (
        encoded(
            Image.fromarray(upright()).convert('CMYK'), 'JPEG', quality=95
        ),
        upright(),
    ),
    'CMYK TIFF': (
        encoded(Image.fromarray(upright()).convert('CMYK'), 'TIFF'),
        upright(),
    ),
    '16-bit grey': (encoded(_GREY * np.uint16(257), 'PNG'), _GREY_AS_RGB),
    '16-bit colour': (
        cv2.imencode('.png', upright()[..., ::-1] * np.uint16(257))[1]
        .tobytes(),
        upright(),
    ),
    'turned JPEG': (turned('JPEG'), upright()),
    'turned PNG': (turned('PNG'), upright()),
    'RGBA': (
        encoded(Image.fromarray(upright()).convert('RGBA'), 'PNG'),
        upright(),
    ),
    'two in one JPEG': (
        encoded(
            upright(),
            'MPO',
            save_all=True,
            append_images=[Image.new('RGB', (96, 96))],
            quality=95,
        ),
        upright(),
    ),
    'trailing bytes': (JPEG + b'more of the camera', upright()),
}  # fmt: skip

"""Pictures beside their truth, small, as JPEG in base64."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import mmcv
import numpy as np
from mmengine.fileio import get as read_file
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmtransxnet.utils.text import shorten

SIDE = 320
"""Longer side of a drawn picture in pixels."""

RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Colours of right and wrong, told apart by colour-blind readers, too."""

_FONT = f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf'


def open_picture(path: str | None, tensor: Any = None) -> Image.Image:
    """A picture of the data.

    Args:
        path: Its file, local or as mmengine reads others; None for data that
            is not in files.
        tensor: What the model got, ``(3, H, W)``, BGR, if there is no file.

    Returns:
        The picture in RGB, at its size.

    Raises:
        ValueError: The file is not a picture.
    """
    if path is not None:
        # As pipelines read it: PIL does not turn it by its EXIF data.
        array = mmcv.imfrombytes(
            read_file(path), flag='color', channel_order='rgb'
        )
        if array is None:
            raise ValueError(f'{path} is not a picture')
        return Image.fromarray(array)
    values = tensor.flip(0).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values.clip(0, 255).astype('uint8'))


def embed(picture: Image.Image) -> str:
    """A picture as JPEG in base64."""
    buffer = io.BytesIO()
    picture.convert('RGB').save(buffer, 'JPEG', quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def shrink(picture: Image.Image) -> Image.Image:
    """A picture whose longer side has :data:`SIDE` pixels."""
    scale = SIDE / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return picture.resize(size, Image.Resampling.BICUBIC)


def draw_boxes(
    picture: Image.Image,
    boxes: NDArray,
    texts: Sequence[str],
    right: Sequence[bool],
    masks: Sequence[NDArray] | None = None,
) -> str:
    """A picture with boxes and masks in the colours of right and wrong.

    Args:
        picture: At its size.
        boxes: ``(N, 4)``, left, top, right, bottom in pixels.
        texts: Written above each box.
        right: The colour of each.
        masks: ``(H, W)`` each.

    Returns:
        JPEG in base64.
    """
    small = shrink(picture)
    for one, good in zip(masks or (), right, strict=False):
        area = Image.fromarray(one.astype('uint8') * 110).resize(small.size)
        small.paste(RIGHT if good else WRONG, mask=area)
    draw = ImageDraw.Draw(small)
    font = ImageFont.truetype(_FONT, 12)
    scale = np.array(small.size * 2) / np.array(picture.size * 2)
    for box, text, good in zip(boxes * scale, texts, right, strict=True):
        colour = RIGHT if good else WRONG
        left, top, *end = box.tolist()
        draw.rectangle(
            (left, top, max(left, end[0]), max(top, end[1])), None, colour, 2
        )
        _write(draw, (left, top), shorten(text, 24), font, colour)
    return embed(small)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: Any,
    colour: tuple[int, int, int],
) -> None:
    """Write on a ground, above a place if there is room."""
    width, height = draw.textbbox((0, 0), text, font)[2:]
    left = max(0, min(place[0], SIDE - width - 3))
    top = place[1] - height - 3
    top = top if top >= 0 else place[1]
    ground = (left, top, left + width + 3, top + height + 3)
    draw.rectangle(ground, colour)
    draw.text((left + 2, top + 1), text, (255, 255, 255), font)


def draw_labels(
    picture: Image.Image, labels: NDArray, palette: NDArray
) -> str:
    """A picture under its label map.

    Args:
        picture: At its size.
        labels: ``(H, W)``; those beyond the palette are not coloured.
        palette: ``(N, 3)``, RGB.

    Returns:
        JPEG in base64.
    """
    small = shrink(picture)
    table = np.zeros((256 + len(palette), 3), 'uint8')
    table[: len(palette)] = palette
    known = labels < len(palette)
    colours = table[np.where(known, labels, len(palette))]
    size, near = small.size, Image.Resampling.NEAREST
    over = Image.fromarray(colours).resize(size, near)
    share = Image.fromarray(known.astype('uint8') * 150).resize(size, near)
    small.paste(over, mask=share)
    return embed(small)

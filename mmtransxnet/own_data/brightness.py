"""Whether pictures are nearly black as OpenMMLab loads them."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from mmtransxnet.own_data.collection import Picture

_LOOKED_AT = 20
"""Pictures that are loaded, evenly spread."""

_DARK = 32
"""Of 255; a picture of 12 bits in a file of 16 has at most 15."""


def darkness(pictures: Sequence[Picture]) -> list[str]:
    """Return a warning if pictures are nearly black.

    OpenCV takes the upper 8 of 16 bits, so pictures that use only the lower
    ones are black in training.

    Returns:
        A sentence, or none.
    """
    step = max(1, math.ceil(len(pictures) / _LOOKED_AT))
    levels = [_level(picture) for picture in pictures[::step]]
    brightest = max(
        (level for level in levels if level is not None), default=_DARK
    )
    if brightest >= _DARK:
        return []
    return [
        f'Warning: pictures are nearly black when they are loaded with 8 bits '
        f'(99% of their values are at most {brightest:.0f} of 255): if their '
        'files have 16 bits, convert them to 8 bits, with the full range, '
        'first.'
    ]


def _level(picture: Picture) -> float | None:
    """The value below which 99% of a picture are; None if it is broken."""
    pixels = cv2.imread(str(picture.path), cv2.IMREAD_COLOR)
    if pixels is None:
        return None
    return float(np.percentile(np.asarray(pixels, np.uint8), 99))

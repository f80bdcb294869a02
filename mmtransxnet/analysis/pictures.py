"""Pictures for the analyses."""

import cv2
import numpy as np

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.extras import import_extra

EXAMPLES = ('astronaut', 'chelsea', 'coffee', 'rocket')
"""Photographs that scikit-image contains, without a download."""


def example_pictures(count: int = len(EXAMPLES)) -> list[np.ndarray]:
    """Photographs of scikit-image.

    Args:
        count: Number of pictures, 1 to 4.

    Returns:
        Blue, green, red ``(H, W, 3)``, uint8.

    Raises:
        UserError: There are not as many.
        ImportError: scikit-image is not installed.
    """
    if not 1 <= count <= len(EXAMPLES):
        raise UserError(
            f'{count} pictures: there are 1 to {len(EXAMPLES)} examples; name '
            'pictures or a folder for others'
        )
    data = import_extra('skimage.data', 'scikit-image')
    return [getattr(data, name)()[..., ::-1] for name in EXAMPLES[:count]]


def square(picture: np.ndarray, size: int) -> np.ndarray:
    """Crop the centred square of a picture and resize it.

    Args:
        picture: ``(H, W, 3)``, uint8.
        size: Side in pixels.

    Returns:
        ``(size, size, 3)``, uint8.
    """
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = np.ascontiguousarray(picture[top : top + side, left : left + side])
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(crop, (size, size), interpolation=method)

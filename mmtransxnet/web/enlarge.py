"""Small pictures, enlarged before they are drawn on.

Text and lines have a minimum size in pixels. On a small picture that the
browser enlarges, they would be coarse and hide what they name.
"""

from dataclasses import replace

import numpy as np
from PIL import Image

from mmtransxnet.deploy import runtime
from mmtransxnet.web.models import PatchList, Prediction

_SIDE = 400
"""Longer side in pixels up to which pictures are enlarged."""


def enlarged(found: Prediction) -> Prediction:
    """A prediction whose picture is enlarged a whole number of times.

    Args:
        found: The prediction; returned itself if its picture is large.
    """
    height, width = found.pixels.shape[:2]
    factor = _SIDE // max(height, width)
    if factor < 2:
        return found
    image = Image.fromarray(found.pixels)
    pixels = np.asarray(
        image.resize(
            (factor * width, factor * height), Image.Resampling.BICUBIC
        )
    )
    result = _scaled(found.result, factor)
    return replace(found, pixels=pixels, result=result)


def _scaled(result: runtime.Result, factor: int) -> runtime.Result:
    height, width = result.size
    size = factor * height, factor * width
    if isinstance(result, runtime.Segmentation):
        scores = np.broadcast_to(np.float32(1), size)
        return runtime.Segmentation(
            size, _repeat(result.labels, factor), scores
        )
    if isinstance(result, runtime.Classification):
        return replace(result, size=size)
    patches = result.patches
    if patches is not None:
        patches = PatchList(
            runtime.Patch(
                _repeat(patch.pixels, factor),
                factor * patch.top,
                factor * patch.left,
            )
            for patch in patches
        )
    return replace(
        result, size=size, boxes=factor * result.boxes, patches=patches
    )


def _repeat(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)

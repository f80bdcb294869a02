"""Compose pictures: scenes of several digits, and single digits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .render import MASK_LEVEL, MAX_ANGLE, blend, pick_ink, stamp
from .scans import Crop, Sources, random_background

HEIGHTS = (0.175, 0.375)
"""Height of a digit as a share of the side of a scene: 28 to 60 at 160."""

PHOTO_SIDES = (112, 224)
"""Side of the photo cut behind a scene, in photo pixels: at most the width
of the validation part."""

MAX_DIGITS = 6

MIN_VISIBLE = 0.8
"""Share of its pixels that a digit keeps under later digits."""

TRIES = 12
"""Positions tried for a digit before it is left out."""


@dataclass(frozen=True)
class Scene:
    """A picture and its annotations.

    Attributes:
        image: RGB (size, size, 3).
        owner: (size, size) index of the visible digit, -1 for background.
        digits: Index of the scan of each digit, in the order of drawing.
        crop: Where the background was cut.
    """

    image: NDArray[np.uint8]
    owner: NDArray[np.int64]
    digits: list[int]
    crop: Crop


def draw_scene(
    rng: np.random.Generator, sources: Sources, split: str, size: int
) -> Scene:
    """Draw 1 to ``MAX_DIGITS`` digits on a photo cut.

    Digits lie entirely inside the picture. They may overlap as long as each
    keeps ``MIN_VISIBLE`` of its own pixels. A digit is left out if no such
    position with enough contrast is found.

    Args:
        rng: Source of randomness, for this scene alone.
        sources: Scans and photographs.
        split: ``'train'`` or ``'val'``.
        size: Side of the scene in pixels.
    """
    while True:
        image, crop = random_background(
            rng, sources, split, sides=PHOTO_SIDES, size=size
        )
        owner = np.full((size, size), -1, dtype=np.int64)
        digits: list[int] = []
        spare: list[float] = []  # pixels that each digit may still lose
        for _ in range(rng.integers(1, MAX_DIGITS + 1)):
            digit = int(rng.choice(sources.pools[split]))
            height = size * rng.uniform(*HEIGHTS)
            alpha = stamp(sources.scans[digit], height, _angle(rng))
            if _add(rng, image, owner, alpha, spare):
                digits.append(digit)
        if digits:
            return Scene(image, owner, digits, crop)


def draw_single(
    rng: np.random.Generator,
    sources: Sources,
    split: str,
    digit: int,
    *,
    size: int,
    scene_size: int,
) -> tuple[NDArray[np.uint8], Crop]:
    """Draw one scan near the middle of a small photo cut.

    Digits and background have the scale they have in a scene of
    ``scene_size``, so a classifier is trained on what a detector will see.
    Digits that are too tall for the cut occur only in scenes.

    Args:
        rng: Source of randomness, for this picture alone.
        sources: Scans and photographs.
        split: ``'train'`` or ``'val'``.
        digit: Index of the scan.
        size: Side of the picture in pixels.
        scene_size: Side of the scenes whose scale the picture has.

    Returns:
        RGB image (size, size, 3) and where its background was cut.
    """
    zoom = size / scene_size
    near, far = (round(side * zoom) for side in PHOTO_SIDES)
    low, high = single_heights(size, scene_size)
    while True:
        image, crop = random_background(
            rng, sources, split, sides=(near, far), size=size
        )
        height = rng.uniform(low, high)
        alpha = stamp(sources.scans[digit], height, _angle(rng))
        h, w = alpha.shape
        y = int((size - h) * rng.uniform(0.25, 0.75))
        x = int((size - w) * rng.uniform(0.25, 0.75))
        around = image[y : y + h, x : x + w]
        ink = pick_ink(rng, [around.reshape(-1, 3)])
        if ink is not None:
            blend(around, alpha, ink)
            return image, crop


def single_heights(size: int, scene_size: int) -> tuple[float, float]:
    """Smallest and largest height of a digit on its own, in pixels.

    The largest leaves room for the corners of a turned digit.
    """
    return (
        HEIGHTS[0] * scene_size,
        min(HEIGHTS[1] * scene_size, 0.8 * size),
    )


def _angle(rng: np.random.Generator) -> float:
    return rng.uniform(-MAX_ANGLE, MAX_ANGLE)


def _add(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    owner: NDArray[np.int64],
    alpha: NDArray[np.uint8],
    spare: list[float],
) -> bool:
    """Draw one more digit: updates image, owner and spare in place.

    Returns:
        Whether a position was found.
    """
    mask = alpha >= MASK_LEVEL
    h, w = mask.shape
    for _ in range(TRIES):
        y = int(rng.integers(owner.shape[0] - h + 1))
        x = int(rng.integers(owner.shape[1] - w + 1))
        around = image[y : y + h, x : x + w]
        owners = owner[y : y + h, x : x + w]
        covered = owners[mask]
        hidden = np.bincount(covered[covered >= 0], minlength=len(spare))
        if any(hidden > spare):
            continue
        groups = [around[owners == index] for index in np.unique(owners)]
        ink = pick_ink(rng, groups)
        if ink is None:
            continue
        blend(around, alpha, ink)
        owners[mask] = len(spare)
        spare[:] = [*(spare - hidden), (1 - MIN_VISIBLE) * mask.sum()]
        return True
    return False

"""From an 8 x 8 scan to ink on a picture.

Colours are chosen and mixed in integers, so results do not depend on the
machine.
"""

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_ANGLE = 20.0
"""Degrees; small enough that 6 and 9 (and 1 and 7) stay distinct."""

PAPER_LEVEL = 0.52
"""Ink of the scan that becomes the outline of the stroke."""

EDGE = 1.5
"""Width of the antialiased edge of a stroke, about, in pixels."""

CONTRAST = (55, 110)
"""Minimum contrast of ink and background, of 255: in luma, and in the colour
channel that differs most. Luma alone would select mostly green."""

EASY, MIN_APART = 0.95, 0.7
"""Share of the pixels around a digit that its ink should, and must, stand
out from."""

SAMPLES = 256
"""Number of pixels sampled around a digit."""

MASK_LEVEL = 128
"""Alpha, of 255, from which a pixel belongs to the digit."""


def stamp(
    scan: NDArray[np.float32], height: float, angle: float
) -> NDArray[np.uint8]:
    """Enlarge and rotate a scan smoothly, in one bicubic step.

    Args:
        scan: (8, 8) ink, 0 to 1.
        height: Height of the eight rows in the result, in pixels.
        angle: Counterclockwise rotation in degrees.

    Returns:
        Alpha (h, w), 0 to 255, without empty rows and columns around it.
    """
    rows = scan.shape[0]
    zoom = height / rows
    side = math.ceil(rows * zoom * 1.5)  # contains the scan at any angle
    cos = math.cos(math.radians(angle)) / zoom
    sin = math.sin(math.radians(angle)) / zoom
    # Padding with paper, as the filter reads beyond the last row.
    padded = np.pad(scan, 2)
    centre = padded.shape[0] / 2
    shift_x = centre - (cos - sin) * side / 2
    shift_y = centre - (sin + cos) * side / 2
    smooth = Image.fromarray(padded).transform(
        (side, side),
        Image.Transform.AFFINE,
        (cos, -sin, shift_x, sin, cos, shift_y),
        resample=Image.Resampling.BICUBIC,
    )
    ink = (np.asarray(smooth) - PAPER_LEVEL) * max(1.0, zoom / EDGE) + 0.5
    alpha = np.rint(ink.clip(0, 1) * 255).astype(np.uint8)
    ys, xs = np.nonzero(alpha)
    return alpha[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def luma(rgb: NDArray) -> NDArray[np.int64]:
    """Brightness (...) of RGB colours (..., 3), ITU-R BT.601, 0 to 255."""
    r, g, b = (rgb[..., channel].astype(np.int64) for channel in range(3))
    return (299 * r + 587 * g + 114 * b) // 1000


def pick_ink(
    rng: np.random.Generator, groups: list[NDArray[np.uint8]]
) -> NDArray[np.int64] | None:
    """Draw a random colour that contrasts with its surroundings.

    Args:
        rng: Source of randomness.
        groups: RGB pixels (N, 3) of the background and of each neighbour.
            The ink must stand out from the pixels of each group: a
            neighbour counts even if only few of its pixels are near.

    Returns:
        The first random RGB colour (3,) that stands out from nearly all
        pixels, else the best one, or None if even that is hard to find.
    """
    inks = _random_inks(rng)
    shares: NDArray[np.float64] = np.ones(len(inks))
    for group in groups:
        some = group[rng.integers(len(group), size=SAMPLES)]
        shares = np.minimum(shares, _shares_apart(inks, some))
    contrasting = np.flatnonzero(shares >= EASY)
    best = contrasting[0] if len(contrasting) else shares.argmax()
    return inks[best] if shares[best] >= MIN_APART else None


def _random_inks(rng: np.random.Generator) -> NDArray[np.int64]:
    """Light RGB colours (24, 3), from white to saturated."""
    inks = [
        colorsys.hsv_to_rgb(hue, 0.7 * saturation, 0.85 + 0.15 * value)
        for hue, saturation, value in rng.random((24, 3)).tolist()
    ]
    return np.rint(np.array(inks) * 255).astype(np.int64)


def _shares_apart(
    inks: NDArray[np.int64], pixels: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Share (M,) of pixels (N, 3) that each ink (M, 3) stands out from."""
    luma_apart = abs(luma(inks)[:, None] - luma(pixels))
    # Channels first: numpy reduces a short last axis slowly.
    colour_apart = abs(inks.T[:, :, None] - pixels.T[:, None]).max(axis=0)
    apart = (luma_apart >= CONTRAST[0]) & (colour_apart >= CONTRAST[1])
    return apart.mean(axis=1)


def blend(
    canvas: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    ink: NDArray[np.int64],
) -> None:
    """Lay ink (3,) over a canvas (h, w, 3), in place, by its alpha (h, w)."""
    weight = alpha[..., None].astype(np.int64)
    mixed = canvas * (255 - weight) + ink * weight
    canvas[:] = (mixed + 127) // 255

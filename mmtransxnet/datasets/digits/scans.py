"""The scans and photographs that scikit-learn bundles, split in two.

The 1,797 scans of handwritten digits (8 x 8, values 0..16) are the test
part of the UCI set "Optical Recognition of Handwritten Digits" (E. Alpaydin
and C. Kaynak, 1998). The photographs china.jpg (by danielbuechele) and
flower.jpg (by vultilion) are CC BY 2.0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmtransxnet.utils.extras import import_extra

SPLITS = ('train', 'val')
TRAIN_WIDTH = 0.65
"""Share of a photograph's width, from the left, that is for training."""

BRIGHTNESS = 55
"""Brightness of the photographs behind the digits, in percent."""


@dataclass(frozen=True)
class Crop:
    """Where a background comes from: photo name and (x, y, w, h) in it."""

    photo: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Sources:
    """The scans and photographs for scenes.

    Attributes:
        scans: (N, 8, 8) ink of each scan, 0 for paper to 1.
        labels: (N,) digit 0..9 of each scan.
        pools: Indices of the scans that a split may use.
        photos: RGB photographs (h, w, 3), dimmed, by file name.
    """

    scans: NDArray[np.float32]
    labels: NDArray[np.int64]
    pools: dict[str, NDArray[np.int64]]
    photos: dict[str, NDArray[np.uint8]]


def load_sources() -> Sources:
    """Load and split scans and photographs.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    # Imported here, because it takes a second and only this function needs it.
    datasets = import_extra('sklearn.datasets', 'scikit-learn')
    digits = datasets.load_digits()
    scans = digits.images.astype(np.float32)
    scans /= scans.max(axis=(1, 2), keepdims=True)
    bunch = datasets.load_sample_images()
    names = [Path(name).name for name in bunch.filenames]
    return Sources(
        scans=scans,
        labels=digits.target.astype(np.int64),
        pools=split_scans(digits.target),
        photos={
            name: dim(photo)
            for name, photo in zip(names, bunch.images, strict=True)
        },
    )


def dim(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Darken a photograph, in integers, so that light ink shows on it.

    With ink of either polarity on photographs of full brightness, a network
    needed several times as many pictures to learn the digits.
    """
    return (photo.astype(np.uint16) * BRIGHTNESS // 100).astype(np.uint8)


def split_scans(labels: NDArray) -> dict[str, NDArray[np.int64]]:
    """Split scans by index: the last fifth of every class is validation.

    The scans are stored writer by writer, so the last ones are mostly from
    hands that training has not seen. The split does not depend on a seed:
    a validation scan is never a training scan of another build.

    Args:
        labels: (N,) digit of each scan.

    Returns:
        Sorted scan indices of ``'train'`` and ``'val'``.
    """
    train, val = [], []
    for label in range(10):
        (indices,) = np.nonzero(labels == label)
        cut = len(indices) - len(indices) // 5
        train.append(indices[:cut])
        val.append(indices[cut:])
    return {
        'train': np.sort(np.concatenate(train)),
        'val': np.sort(np.concatenate(val)),
    }


def photo_columns(width: int, split: str) -> tuple[int, int]:
    """First and past-the-end column of a photo that a split may use."""
    cut = int(width * TRAIN_WIDTH)
    return (0, cut) if split == 'train' else (cut, width)


def random_background(
    rng: np.random.Generator,
    sources: Sources,
    split: str,
    *,
    sides: tuple[int, int],
    size: int,
) -> tuple[NDArray[np.uint8], Crop]:
    """Cut a random square from the split's part of a random photograph.

    Args:
        rng: Source of randomness.
        sources: The photographs.
        split: ``'train'`` or ``'val'``.
        sides: Smallest and largest side of the cut, in photo pixels.
        size: Side of the result in pixels.

    Returns:
        RGB background (size, size, 3) and where it was cut.
    """
    name = sorted(sources.photos)[rng.integers(len(sources.photos))]
    photo = sources.photos[name]
    left, right = photo_columns(photo.shape[1], split)
    side = int(rng.integers(sides[0], sides[1] + 1))
    x = int(rng.integers(left, right - side + 1))
    y = int(rng.integers(0, photo.shape[0] - side + 1))
    # Cut before the resize, so its filter does not read across the border.
    cut = Image.fromarray(photo[y : y + side, x : x + side])
    resized = cut.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(resized), Crop(name, (x, y, side, side))

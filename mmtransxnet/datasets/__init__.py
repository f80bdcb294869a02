"""The digits set: real images, made from what scikit-learn bundles."""

from .classes import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
from .digits import DigitsSet, build_digits

__all__ = [
    'CLASSES',
    'PALETTE',
    'SEG_CLASSES',
    'SEG_PALETTE',
    'DigitsSet',
    'build_digits',
]

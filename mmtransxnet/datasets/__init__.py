"""The digits set: real images, made from what scikit-learn bundles."""

from .classes import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
from .digits import DigitsSet, build_digits
from .preview import contact_sheet, side_by_side

__all__ = [
    'CLASSES',
    'PALETTE',
    'SEG_CLASSES',
    'SEG_PALETTE',
    'DigitsSet',
    'build_digits',
    'contact_sheet',
    'side_by_side',
]

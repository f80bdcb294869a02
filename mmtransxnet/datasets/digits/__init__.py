"""The digits set: real images, made from data in scikit-learn."""

from .build import DigitsSet, build_digits
from .classes import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
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

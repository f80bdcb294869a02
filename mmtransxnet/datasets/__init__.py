"""Data sets that come with the package."""

from mmtransxnet.datasets.digits import (
    CLASSES,
    PALETTE,
    SEG_CLASSES,
    SEG_PALETTE,
    DigitsSet,
    build_digits,
    contact_sheet,
    side_by_side,
)

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

"""Class names and colours of the digits set, as data for configs."""

CLASSES = ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
"""Detection and classification classes; COCO category id = index."""

PALETTE = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (67, 99, 216),
    (245, 130, 49),
    (145, 30, 180),
    (66, 212, 244),
    (240, 50, 230),
    (191, 239, 69),
    (250, 190, 212),
]
"""One RGB colour per digit class."""

SEG_CLASSES = ('background', *CLASSES)
"""Segmentation classes as the network sees them, that is after
``reduce_zero_label=True``: the label map stores index + 1."""

SEG_PALETTE = [(40, 40, 40), *PALETTE]
"""One RGB colour per segmentation class."""

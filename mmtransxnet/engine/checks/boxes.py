"""Checks of the boxes in COCO annotations.

mmdet silently drops some bad boxes and trains on others.
"""

import json
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from mmtransxnet.engine.checks.dataset_types import (
    defining_class,
    reads_local_files,
)

# Methods through which a data set gets boxes in COCO's format, and the classes
# that may define them.
_BOX_METHODS = (
    ('load_data_list', ('mmdet.CocoDataset',)),
    ('parse_data_info', ('mmdet.CocoDataset',)),
    ('full_init', ('mmdet.BaseDetDataset',)),
    # How other classes list samples that are not loaded yet is unknown.
    ('__init__', ('mmdet.CocoDataset', 'mmdet.BaseDetDataset')),
)


def has_coco_boxes(cls: Any) -> bool:
    """Whether a data set class reads boxes as mmdet's CocoDataset does."""
    return all(
        defining_class(cls, method) in known for method, known in _BOX_METHODS
    )


def load_without_bad_boxes(dataset: Any) -> list[str]:
    """Let a data set list its samples without bad boxes.

    Args:
        dataset: Built with ``lazy_init=True``; with boxes or without.

    Returns:
        The problem of each box that is left out, one line each.
    """
    problems: list[str] = []
    if not has_coco_boxes(type(dataset)):
        dataset.full_init()
        return problems
    parse = dataset.parse_data_info

    def parse_without_bad_boxes(raw: dict[str, Any]) -> Any:
        image = raw['raw_img_info']
        kept = []
        for annotation in raw['raw_ann_info']:
            size = image['width'], image['height']
            problem = box_problem(annotation, size, dataset.coco.cats)
            if problem is None:
                kept.append(annotation)
                continue
            problems.append(
                f'{dataset.ann_file}: annotation {annotation.get("id")} of '
                f'{image["file_name"]}: {problem}'
            )
        return parse({**raw, 'raw_ann_info': kept})

    dataset.parse_data_info = parse_without_bad_boxes
    try:
        dataset.full_init()
    finally:
        del dataset.parse_data_info
    return problems


def box_problem(
    annotation: Mapping[str, Any],
    size: tuple[int, int],
    categories: Container[int],
) -> str | None:
    """Return what is wrong with a box in COCO's format, or None.

    Boxes that extend beyond the picture are valid: the pipelines clip them.

    Args:
        annotation: With ``bbox`` (x, y, width, height in pixels), ``area``
            (square pixels) and ``category_id``.
        size: Width and height of the picture in pixels.
        categories: Known category ids.
    """
    if annotation.get('ignore'):
        return None  # mmdet leaves it out
    if annotation.get('category_id') not in categories:
        return f'unknown category {annotation.get("category_id")}'
    box: Any = annotation.get('bbox')
    area: Any = annotation.get('area')
    if not _is_box(box) or not _is_finite(area):
        return f'invalid numbers: bbox {box}, area {area}'
    x, y, width, height = box
    if width <= 0 or height <= 0 or area <= 0:
        return f'no area: bbox {box}, area {area}'
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        return f'bbox {box} outside the picture of {size[0]} x {size[1]}'
    return None


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(map(_is_finite, value))
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def orphans(dataset: Any) -> list[str]:
    """Annotations of pictures that the COCO file does not list."""
    lists = defining_class(type(dataset), 'load_data_list')
    if lists != 'mmdet.CocoDataset' or not reads_local_files(
        dataset.backend_args
    ):
        return []
    document = json.loads(Path(dataset.ann_file).read_bytes())
    known = {image['id'] for image in document['images']}
    return [
        f'{dataset.ann_file}: annotation {annotation.get("id")}: no picture '
        f'has the id {annotation.get("image_id")}'
        # Test sets have no annotations.
        for annotation in document.get('annotations', ())
        if annotation.get('image_id') not in known
    ]

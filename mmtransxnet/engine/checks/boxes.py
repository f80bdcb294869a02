"""Are the boxes of COCO's annotations fit to be learned from?

mmdet drops some bad boxes without a word, and trains on others.
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

# Methods that a data set has boxes in COCO's form from, and where it may
# have them from.
_BOX_METHODS = (
    ('load_data_list', ('mmdet.CocoDataset',)),
    ('parse_data_info', ('mmdet.CocoDataset',)),
    ('full_init', ('mmdet.BaseDetDataset',)),
    # Of others it is not known what they do with what is not loaded yet.
    ('__init__', ('mmdet.CocoDataset', 'mmdet.BaseDetDataset')),
)


def has_coco_boxes(cls: Any) -> bool:
    """Whether a data set class reads boxes as mmdet's CocoDataset does."""
    return all(
        defining_class(cls, method) in known for method, known in _BOX_METHODS
    )


def load_without_bad_boxes(dataset: Any) -> list[str]:
    """Have a data set list its samples, bad boxes left out.

    Args:
        dataset: Built with ``lazy_init=True``; with boxes or without.

    Returns:
        What is wrong with the boxes that are left out, a line each.
    """
    problems: list[str] = []
    if not has_coco_boxes(type(dataset)):
        dataset.full_init()
        return problems
    parse = dataset.parse_data_info

    def parse_good(raw: dict[str, Any]) -> Any:
        image = raw['raw_img_info']
        good = []
        for annotation in raw['raw_ann_info']:
            size = image['width'], image['height']
            problem = box_problem(annotation, size, dataset.coco.cats)
            if problem is None:
                good.append(annotation)
                continue
            problems.append(
                f'{dataset.ann_file}: annotation {annotation.get("id")} of '
                f'{image["file_name"]}: {problem}'
            )
        return parse({**raw, 'raw_ann_info': good})

    dataset.parse_data_info = parse_good
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
    """What is wrong with a box in COCO's form, or None.

    What sticks out of the picture is cut off by the pipelines and is fine.

    Args:
        annotation: With ``bbox`` (x, y, width, height in pixels), ``area``
            (square pixels) and ``category_id``.
        size: Width and height of the picture in pixels.
        categories: Known numbers of categories.
    """
    if annotation.get('ignore'):
        return None  # mmdet leaves it out
    if annotation.get('category_id') not in categories:
        return f'unknown category {annotation.get("category_id")}'
    box: Any = annotation.get('bbox')
    area: Any = annotation.get('area')
    if not _is_box(box) or not _is_finite(area):
        return f'no numbers: bbox {box}, area {area}'
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
    """Annotations of pictures that COCO's document does not list."""
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
        # There are none of test sets.
        for annotation in document.get('annotations', ())
        if annotation.get('image_id') not in known
    ]

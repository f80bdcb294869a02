"""Drawings of the digits set and of predictions."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mmtransxnet.utils.extras import import_extra

from .classes import CLASSES, PALETTE
from .scans import SPLITS

COLUMNS, ROWS = 8, 2
CELL = 200
"""Side of a scene on the sheet, in pixels."""


def contact_sheet(root: str | os.PathLike) -> Image.Image:
    """Draw pictures of both splits as they are read back from files.

    Per split, from the top: scenes, the same scenes with the annotated
    masks, boxes and classes, and single digits.

    Args:
        root: Root of a finished set.
    """
    bands = []
    for split in SPLITS:
        scenes, annotated = _scenes(Path(root), split)
        bands += [scenes, annotated, _singles(Path(root), split)]
    height = sum(band.height for band in bands)
    sheet = Image.new('RGB', (COLUMNS * CELL, height))
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange pictures in rows of a grid as wide as the sheet."""
    cell = COLUMNS * CELL // columns
    rows = -(-len(images) // columns)
    grid = Image.new('RGB', (COLUMNS * CELL, rows * cell), 'white')
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        small = image.resize((cell - 4, cell - 4))
        grid.paste(small, (column * cell + 2, row * cell + 2))
    return grid


def side_by_side(
    root: str | os.PathLike,
    predictions: Sequence[Mapping[str, Any]],
    min_score: float = 0.5,
) -> Image.Image:
    """Draw ground truth (left) beside predictions (right) of scenes.

    Args:
        root: Root of the set.
        predictions: What mmdet's ``DumpDetResults`` wrote for the scenes of
            the validation part, masks included.
        min_score: Instances that score less are left out.
    """
    path = Path(root) / 'coco' / 'annotations' / 'instances_val.json'
    truth = _by_image(json.loads(path.read_bytes())['annotations'])
    count = min(COLUMNS // 2 * 3, len(predictions))
    chosen = [predictions[i * len(predictions) // count] for i in range(count)]
    cells = []
    for prediction in chosen:
        image = Image.open(prediction['img_path'])
        predicted = _as_annotations(prediction['pred_instances'], min_score)
        cells.append(_annotate(image, truth[prediction['img_id']]))
        cells.append(_annotate(image, predicted))
    return _grid(cells, COLUMNS)


def _as_annotations(
    instances: Mapping[str, Any], min_score: float
) -> list[dict]:
    """Predicted instances in the form of COCO's annotations."""
    annotations = []
    for box, label, score, mask in zip(
        instances['bboxes'].tolist(),
        instances['labels'].tolist(),
        instances['scores'].tolist(),
        instances['masks'],
        strict=True,
    ):
        x1, y1, x2, y2 = box
        if score >= min_score:
            annotations.append(
                {
                    'bbox': (x1, y1, x2 - x1, y2 - y1),
                    'category_id': label,
                    'score': score,
                    'segmentation': mask,
                }
            )
    return annotations


def _by_image(annotations: Sequence[dict]) -> dict[int, list[dict]]:
    of_image = defaultdict(list)
    for annotation in annotations:
        of_image[annotation['image_id']].append(annotation)
    return of_image


def _scenes(root: Path, split: str) -> tuple[Image.Image, Image.Image]:
    """First scenes of a split, without and with annotations."""
    path = root / 'coco' / 'annotations' / f'instances_{split}.json'
    document = json.loads(path.read_bytes())
    of_image = _by_image(document['annotations'])
    plain, annotated = [], []
    for record in document['images'][: COLUMNS * ROWS]:
        image = Image.open(root / 'coco' / split / record['file_name'])
        plain.append(image)
        annotated.append(_annotate(image, of_image[record['id']]))
    return _grid(plain, COLUMNS), _grid(annotated, COLUMNS)


def _annotate(image: Image.Image, annotations: list[dict]) -> Image.Image:
    """Paint masks on the darkened scene, then boxes and classes."""
    coco_mask = import_extra('pycocotools.mask', 'pycocotools')

    pixels = np.array(image) // 2
    for annotation in annotations:
        mask = coco_mask.decode(annotation['segmentation']).astype(bool)
        pixels[mask] = PALETTE[annotation['category_id']]
    zoom = max(1, 2 * CELL // image.width)  # thin lines, legible names
    drawn = Image.fromarray(pixels).resize(
        (zoom * image.width, zoom * image.height), Image.Resampling.NEAREST
    )
    pen = ImageDraw.Draw(drawn)
    for annotation in annotations:
        x, y, w, h = (zoom * value for value in annotation['bbox'])
        label = annotation['category_id']
        pen.rectangle((x, y, x + w - 1, y + h - 1), outline=PALETTE[label])
        text = CLASSES[label]
        if 'score' in annotation:
            text += f' {annotation["score"]:.2f}'
        pen.text((x + 3, y), text, fill='white', font_size=20)
    return drawn


def _singles(root: Path, split: str) -> Image.Image:
    """Two rows of single digits, evenly from the index of a split."""
    index = json.loads((root / 'imagenet' / f'{split}.json').read_bytes())
    folder = root / 'imagenet' / split
    count = 4 * COLUMNS * ROWS
    names = [
        index[at * len(index) // count]['file_name'] for at in range(count)
    ]
    images = [Image.open(folder / name) for name in names]
    return _grid(images, 4 * COLUMNS)

"""One picture of the digits set, for a person to look at."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .classes import CLASSES, PALETTE
from .sources import SPLITS

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
    """Lay pictures out in rows, the grid as wide as the sheet."""
    cell = COLUMNS * CELL // columns
    rows = -(-len(images) // columns)
    grid = Image.new('RGB', (COLUMNS * CELL, rows * cell), 'white')
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        small = image.resize((cell - 4, cell - 4))
        grid.paste(small, (column * cell + 2, row * cell + 2))
    return grid


def _scenes(root: Path, split: str) -> tuple[Image.Image, Image.Image]:
    """First scenes of a split: as they are, and with annotations."""
    path = root / 'coco' / 'annotations' / f'instances_{split}.json'
    document = json.loads(path.read_bytes())
    of_image = defaultdict(list)
    for annotation in document['annotations']:
        of_image[annotation['image_id']].append(annotation)
    plain, annotated = [], []
    for record in document['images'][: COLUMNS * ROWS]:
        image = Image.open(root / 'coco' / split / record['file_name'])
        plain.append(image)
        annotated.append(_annotate(image, of_image[record['id']]))
    return _grid(plain, COLUMNS), _grid(annotated, COLUMNS)


def _annotate(image: Image.Image, annotations: list[dict]) -> Image.Image:
    """Paint masks on the darkened scene, then boxes and classes."""
    from pycocotools import mask as coco_mask

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
        pen.text((x + 3, y), CLASSES[label], fill='white', font_size=20)
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

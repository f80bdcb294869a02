"""Small prepared data of each task, built by hand."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Collection,
    Object,
    Picture,
    Prepared,
    Split,
)

CLASSES = ('disc', 'square', 'line of trees')


def draw(path: Path, number: int, width: int, height: int) -> tuple:
    """Write noise with a bright rectangle; return its box."""
    random = np.random.default_rng(number)
    image = random.integers(0, 120, (height, width, 3), np.uint8)
    side = min(width, height) // 3
    left, top = number % side, number % side // 2
    image[top : top + side, left : left + side] = 200 + number % 50
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return left, top, left + side, top + side


def prepared(
    folder: Path,
    task: str,
    *,
    train: int = 8,
    val: int = 4,
    size: tuple[int, int] = (96, 64),
    masks: bool = False,
    classes: tuple[str, ...] = CLASSES,
    test: int = 0,
    out: Path | None = None,
) -> Prepared:
    """Write pictures and annotations.

    Args:
        folder: Gets the pictures; the annotations go to ``out``.
        task: Of the data.
        train: Number of pictures.
        val: Number of pictures.
        size: Width and height of the pictures.
        masks: Whether objects have masks.
        classes: Names.
        test: Number of pictures.
        out: Folder of the annotations; ``config_data`` beside ``folder``.
    """
    out = out or folder.parent / 'config_data'
    out.mkdir(parents=True, exist_ok=True)
    counts = dict(train=train, val=val, test=test)
    order = [split for split, count in counts.items() for _ in range(count)]
    pictures = [
        _picture(folder, out, task, number, split, size, masks, classes)
        for number, split in enumerate(order)
    ]
    collection = Collection(
        'pictures of a test', folder, task, classes, pictures,
        ['it was made by a test'], Counter({'boxes without area': 2}),
        has_masks=masks,
    )  # fmt: skip
    splits = {
        split: _split(collection, out, split)
        for split, count in counts.items()
        if count
    }
    segments = task == SEGMENTATION
    return Prepared(
        collection,
        out,
        folder,
        splits,
        out / 'label_maps' if segments else None,
        '.png' if segments else None,
    )


def _picture(folder, out, task, number, split, size, masks, classes):
    path = folder / f'{number:04}.png'
    box = draw(path, number, *size)
    label = classes[number % len(classes)]
    left, top, right, bottom = box
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    if task == CLASSIFICATION:
        return Picture(path, *size, split, label=label)
    if task == DETECTION:
        found = Object(label, box, outline if masks else None)
        return Picture(path, *size, split, objects=(found,))
    label_map = out / 'label_maps' / path.name
    label_map.parent.mkdir(exist_ok=True)
    labels = np.zeros(size[::-1], np.uint8)
    labels[top:bottom, left:right] = number % len(classes)
    Image.fromarray(labels).save(label_map)
    return Picture(path, *size, split, label_map=label_map)


def _split(collection: Collection, out: Path, split: str) -> Split:
    pictures = [p for p in collection.pictures if p.split == split]
    classes = collection.classes
    if collection.task == DETECTION:
        path = out / f'{split}.json'
        path.write_text(json.dumps(_coco(pictures, classes)))
        labels = [item.label for p in pictures for item in p.objects]
    else:
        path = out / f'{split}.txt'
        classifies = collection.task == CLASSIFICATION
        path.write_text(
            '\n'.join(
                f'{p.path.name} {classes.index(p.label)}'
                if classifies
                else p.path.stem
                for p in pictures
            )
        )
        labels = [p.label or classes[0] for p in pictures]
    return Split(path, len(pictures), dict(Counter(labels)))


def _coco(pictures, classes):
    annotations = []
    for number, picture in enumerate(pictures):
        for item in picture.objects:
            left, top, right, bottom = item.box
            box = [left, top, right - left, bottom - top]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=classes.index(item.label) + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=item.mask or [],
                )
            )
    return dict(
        images=[
            dict(id=i, file_name=p.path.name, width=p.width, height=p.height)
            for i, p in enumerate(pictures)
        ],
        annotations=annotations,
        categories=[
            dict(id=i, name=name) for i, name in enumerate(classes, 1)
        ],
    )

"""The embedded digits in each layout that tools/new_config.py reads."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SPLITS = ('train', 'val')


@dataclass(frozen=True)
class Scene:
    """A picture of the digits with its annotations.

    Attributes:
        path: The file.
        split: ``train`` or ``val``.
        image: Its row in COCO's json.
        objects: Rows in COCO's json.
    """

    path: Path
    split: str
    image: dict[str, Any]
    objects: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """A file name that no scene of another split has."""
        return f'{self.split}_{self.path.name}'


def scenes(digits: Path) -> Iterator[Scene]:
    """The scenes of a digits set, training first."""
    for split in SPLITS:
        content = _content(digits, split)
        for image in content['images']:
            objects = [
                row
                for row in content['annotations']
                if row['image_id'] == image['id']
            ]
            path = digits / 'coco' / split / image['file_name']
            yield Scene(path, split, image, objects)


def _content(digits: Path, split: str) -> dict[str, Any]:
    path = digits / 'coco' / 'annotations' / f'instances_{split}.json'
    return json.loads(path.read_bytes())


def class_folders(digits: Path, root: Path) -> None:
    """``SPLIT/CLASS/``, single digits."""
    for split in SPLITS:
        shutil.copytree(digits / 'imagenet' / split, root / split)


def coco(digits: Path, root: Path) -> None:
    """``annotations`` with run-lengths, and a folder for each split."""
    shutil.copytree(digits / 'coco', root)


def voc(digits: Path, root: Path) -> None:
    """``Annotations``, ``JPEGImages`` and ``ImageSets``, counted from 1."""
    (root / 'Annotations').mkdir(parents=True)
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for scene in scenes(digits):
        _copy(scene, root / 'JPEGImages')
        stem = Path(scene.name).stem
        lists[scene.split].append(stem)
        _write_xml(scene, root / 'Annotations' / f'{stem}.xml')
    main = root / 'ImageSets' / 'Main'
    main.mkdir(parents=True)
    for split, names in lists.items():
        (main / f'{split}.txt').write_text('\n'.join(names))


def _write_xml(scene: Scene, path: Path) -> None:
    top = ElementTree.Element('annotation')
    _add(top, 'filename', scene.name)
    size = ElementTree.SubElement(top, 'size')
    for side in ('width', 'height'):
        _add(size, side, scene.image[side])
    for row in scene.objects:
        item = ElementTree.SubElement(top, 'object')
        _add(item, 'name', row['category_id'])
        box = ElementTree.SubElement(item, 'bndbox')
        left, upper, right, lower = _corners(row)
        _add(box, 'xmin', left + 1)
        _add(box, 'ymin', upper + 1)
        _add(box, 'xmax', right)
        _add(box, 'ymax', lower)
    ElementTree.ElementTree(top).write(path)


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def csv_boxes(digits: Path, root: Path) -> None:
    """``train.csv`` and ``val.csv``, all pictures in one folder."""
    root.mkdir(parents=True)
    rows: dict[str, list[list[object]]] = {split: [] for split in SPLITS}
    for scene in scenes(digits):
        _copy(scene, root / 'pictures')
        rows[scene.split] += [
            [scene.name, *_corners(row), row['category_id']]
            for row in scene.objects
        ]
    for split, lines in rows.items():
        with (root / f'{split}.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['image', 'xmin', 'ymin', 'xmax', 'ymax', 'label'])
            writer.writerows(lines)


def yolo(digits: Path, root: Path) -> None:
    """``images``, ``labels`` with boxes, and ``data.yaml``."""
    for scene in scenes(digits):
        _copy(scene, root / 'images' / scene.split)
        sides = scene.image['width'], scene.image['height']
        lines = []
        for row in scene.objects:
            left, upper, width, height = row['bbox']
            values = (
                (left + width / 2) / sides[0],
                (upper + height / 2) / sides[1],
                width / sides[0],
                height / sides[1],
            )
            lines.append(_row(row['category_id'], values))
        _write_rows(root, scene, lines)
    _write_yaml(root)


def yolo_segments(digits: Path, root: Path) -> None:
    """``images``, ``labels`` with outlines, and ``data.yaml``."""
    for scene in scenes(digits):
        _copy(scene, root / 'images' / scene.split)
        sides = np.array([scene.image['width'], scene.image['height']])
        lines = [
            _row(row['category_id'], (_outline(row) / sides).ravel())
            for row in scene.objects
        ]
        _write_rows(root, scene, lines)
    _write_yaml(root)


def _row(number: int, values: Any) -> str:
    return ' '.join([str(number), *(f'{value:.6f}' for value in values)])


def _write_rows(root: Path, scene: Scene, lines: list[str]) -> None:
    folder = root / 'labels' / scene.split
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{Path(scene.name).stem}.txt'
    path.write_text('\n'.join(lines))


def _write_yaml(root: Path) -> None:
    places = ''.join(f'{split}: images/{split}\n' for split in SPLITS)
    names = ', '.join(f"'{digit}'" for digit in range(10))
    (root / 'data.yaml').write_text(f'{places}names: [{names}]\n')


def labelme(digits: Path, root: Path) -> None:
    """A json with polygons beside each picture."""
    for scene in scenes(digits):
        folder = root / scene.split
        _copy(scene, folder)
        shapes = [
            dict(
                label=str(row['category_id']),
                points=_outline(row).tolist(),
                shape_type='polygon',
            )
            for row in scene.objects
        ]
        content = dict(
            shapes=shapes,
            imagePath=scene.name,
            imageWidth=scene.image['width'],
            imageHeight=scene.image['height'],
        )
        path = folder / f'{Path(scene.name).stem}.json'
        path.write_text(json.dumps(content))


def label_maps(digits: Path, root: Path) -> None:
    """``images``, ``masks`` with numbers, and ``classes.txt``."""
    for scene in scenes(digits):
        _copy(scene, root / 'images' / scene.split)
        numbers = np.zeros(
            (scene.image['height'], scene.image['width']), np.uint8
        )
        for row in scene.objects:
            inside = coco_mask.decode(row['segmentation']).astype(bool)
            numbers[inside] = row['category_id'] + 1
        folder = root / 'masks' / scene.split
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f'{Path(scene.name).stem}.png'
        Image.fromarray(numbers).save(path)
    names = ['background', *map(str, range(10))]
    (root / 'classes.txt').write_text('\n'.join(names))


def _copy(scene: Scene, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scene.path, folder / scene.name)


def _corners(row: dict[str, Any]) -> list[int]:
    left, upper, width, height = row['bbox']
    return [left, upper, left + width, upper + height]


def _outline(row: dict[str, Any]) -> np.ndarray:
    """The longest outline of an object, (N, 2) in pixels."""
    inside = coco_mask.decode(row['segmentation'])
    outlines, _ = cv2.findContours(
        inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    # From the centres of pixels to their coordinates.
    return max(outlines, key=len)[:, 0] + 0.5


KINDS: dict[str, tuple[Callable[[Path, Path], None], str]] = dict(
    class_folders=(class_folders, 'classification'),
    coco=(coco, 'detection'),
    voc=(voc, 'detection'),
    csv=(csv_boxes, 'detection'),
    yolo=(yolo, 'detection'),
    yolo_segments=(yolo_segments, 'detection'),
    labelme=(labelme, 'segmentation'),
    label_maps=(label_maps, 'segmentation'),
)
"""How each kind is written, and the task to read it for."""

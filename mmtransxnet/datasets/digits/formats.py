"""Write pictures and annotations in the layout of three data sets."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmtransxnet.utils.extras import import_extra

from .classes import CLASSES
from .scans import Crop, Sources
from .scenes import Scene, draw_scene, draw_single

ADE_SPLITS = {'train': 'training', 'val': 'validation'}

# Keys of the random streams, combined with the seed of the set.
_SCENE, _SINGLE = 0, 1
_SEEDS = {'train': 0, 'val': 1}


def write_scenes(
    root: Path,
    sources: Sources,
    split: str,
    *,
    count: int,
    size: int,
    seed: int,
) -> Iterator[None]:
    """Write the scenes of a split for COCO and ADE20K; yields after each.

    Every scene has its own random stream: scene i does not depend on the
    number of scenes.

    Args:
        root: Root of the set.
        sources: Scans and photographs.
        split: ``'train'`` or ``'val'``.
        count: Number of scenes.
        size: Side of a scene in pixels.
        seed: Seed of the set.
    """
    folders = [
        root / 'coco' / split,
        root / 'ade' / 'images' / ADE_SPLITS[split],
        root / 'ade' / 'annotations' / ADE_SPLITS[split],
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, _SCENE, _SEEDS[split], number])
        scene = draw_scene(rng, sources, split, size)
        name = f'{number:06d}'
        _save_scene(folders, name, scene, sources)
        images.append(
            {
                'id': number,
                'file_name': f'{name}.jpg',
                'height': size,
                'width': size,
                **_origin(scene.crop),
            }
        )
        for annotation in _annotations(scene, sources):
            annotation['id'] = len(annotations) + 1  # 0 means 'no match'
            annotation['image_id'] = number
            annotations.append(annotation)
        yield
    _write_coco(root, split, images, annotations)


def write_singles(
    root: Path,
    sources: Sources,
    split: str,
    *,
    renderings: int,
    size: int,
    scene_size: int,
    seed: int,
) -> Iterator[None]:
    """Write single digits as ImageNet folders; yields after each picture.

    ``imagenet/{split}.json`` tells where each picture came from.

    Args:
        root: Root of the set.
        sources: Scans and photographs.
        split: ``'train'`` or ``'val'``.
        renderings: Number of pictures of each scan.
        size: Side of a picture in pixels.
        scene_size: Side of the scenes whose scale the pictures have.
        seed: Seed of the set.
    """
    folder = root / 'imagenet' / split
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    index: list[dict[str, Any]] = []
    for digit in sources.pools[split].tolist():
        label = int(sources.labels[digit])
        for rendering in range(renderings):
            rng = np.random.default_rng(
                [seed, _SINGLE, _SEEDS[split], digit, rendering]
            )
            image, crop = draw_single(
                rng, sources, split, digit, size=size, scene_size=scene_size
            )
            name = f'{CLASSES[label]}/{digit:04d}_{rendering}.jpg'
            _save_jpeg(folder / name, image)
            index.append(
                {
                    'file_name': name,
                    'label': label,
                    'digit_index': digit,
                    **_origin(crop),
                }
            )
            yield
    write_json(root / 'imagenet' / f'{split}.json', index)


def write_json(path: Path, value: Any) -> None:
    """Write JSON deterministically."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'))
    path.write_bytes(text.encode('ascii') + b'\n')


def _save_scene(
    folders: list[Path], name: str, scene: Scene, sources: Sources
) -> None:
    coco, ade_images, ade_labels = folders
    picture = coco / f'{name}.jpg'
    _save_jpeg(picture, scene.image)
    _link(picture, ade_images / picture.name)
    labels = _label_map(scene, sources)
    Image.fromarray(labels).save(ade_labels / f'{name}.png')


def _write_coco(
    root: Path,
    split: str,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> None:
    folder = root / 'coco' / 'annotations'
    folder.mkdir(exist_ok=True)
    document = {
        'info': {
            'description': f'Digits on photographs, {split}',
            'contributor': 'Photographs by danielbuechele and vultilion',
        },
        'licenses': [
            {
                'id': 1,
                'name': 'CC BY 2.0',
                'url': 'https://creativecommons.org/licenses/by/2.0/',
            }
        ],
        'images': [{'license': 1, **image} for image in images],
        'annotations': annotations,
        'categories': [
            {'id': index, 'name': name} for index, name in enumerate(CLASSES)
        ],
    }
    write_json(folder / f'instances_{split}.json', document)


def _save_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Save RGB (h, w, 3) as JPEG: a third of a PNG's size, sharp edges.

    Full chroma resolution, as ink often differs from paper in hue.
    """
    Image.fromarray(image).save(path, quality=95, subsampling=0)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, target)


def _origin(crop: Crop) -> dict[str, Any]:
    return {'photo': crop.photo, 'photo_box': list(crop.box)}


def _label_map(scene: Scene, sources: Sources) -> NDArray[np.uint8]:
    """ADE20K labels (h, w): 1 background, 2 + d digit d; 0 is not used."""
    of_digit = [2 + sources.labels[digit] for digit in scene.digits]
    return np.array([1, *of_digit], dtype=np.uint8)[scene.owner + 1]


def _annotations(scene: Scene, sources: Sources) -> Iterator[dict[str, Any]]:
    """COCO annotations of what is visible of each digit, without ids."""
    coco_mask = import_extra('pycocotools.mask', 'pycocotools')

    for number, digit in enumerate(scene.digits):
        mask = scene.owner == number
        ys, xs = np.nonzero(mask)
        x, y = int(xs.min()), int(ys.min())
        code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        yield {
            'category_id': int(sources.labels[digit]),
            'segmentation': {
                'size': list(mask.shape),
                'counts': code['counts'].decode('ascii'),
            },
            'bbox': [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
            'area': len(xs),
            'iscrowd': 0,
            'digit_index': digit,
        }

"""Small annotated data in the usual layouts, as users have it."""

import csv
import json

import numpy as np
from PIL import Image

SIZE = 64, 48
"""Width and height of the pictures."""

BOXES = {
    'cat': (4.0, 6.0, 24.0, 30.0),
    'dog': (30.0, 10.0, 60.0, 40.0),
}
"""An object of each class, as it is in every picture."""


def picture(seed, size=SIZE):
    """A picture of noise, uint8 (H, W, 3)."""
    shape = size[1], size[0], 3
    return np.random.default_rng(seed).integers(0, 256, shape, 'uint8')


def write_picture(path, seed, size=SIZE, **options):
    """Write a picture, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path, **options)
    return path


def write_text(path, content):
    """Write a text file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def class_folders(root, number=5, splits=('',)):
    """Pictures in ``SPLIT/CLASS/``."""
    for s, split in enumerate(splits):
        for c, label in enumerate(BOXES):
            for i in range(number):
                seed = 100 * s + 10 * c + i
                write_picture(root / split / label / f'{i}.jpg', seed)
    return root


def corners(box):
    """A box as a polygon."""
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def coco_content(names, mask=None):
    """COCO's content; ``mask`` turns a box into a segmentation."""
    annotations = [
        dict(
            id=len(BOXES) * i + c + 1,
            image_id=i + 1,
            category_id=c + 1,
            bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
            area=(box[2] - box[0]) * (box[3] - box[1]),
            iscrowd=0,
            **({} if mask is None else dict(segmentation=mask(box))),
        )
        for i in range(len(names))
        for c, box in enumerate(BOXES.values())
    ]
    return dict(
        images=[
            dict(id=i + 1, file_name=name, width=SIZE[0], height=SIZE[1])
            for i, name in enumerate(names)
        ],
        annotations=annotations,
        categories=[
            dict(id=c + 1, name=label) for c, label in enumerate(BOXES)
        ],
    )


def coco(root, number=6, mask=None):
    """One ``annotations/instances.json``, pictures in ``images/``."""
    names = [f'{i}.jpg' for i in range(number)]
    for i, name in enumerate(names):
        write_picture(root / 'images' / name, i)
    content = json.dumps(coco_content(names, mask))
    write_text(root / 'annotations' / 'instances.json', content)
    return root


def coco_splits(root, mask=None):
    """``SPLIT/_annotations.coco.json`` beside the pictures of each split."""
    for s, split in enumerate(('train', 'valid')):
        names = [f'{split}{i}.jpg' for i in range(4)]
        for i, name in enumerate(names):
            write_picture(root / split / name, 10 * s + i)
        content = json.dumps(coco_content(names, mask))
        write_text(root / split / '_annotations.coco.json', content)
    return root


def voc_xml(name, boxes=BOXES, size=SIZE, first=0):
    """An XML file; ``first`` is added to left and top."""
    objects = ''.join(
        f'<object><name>{label}</name><difficult>0</difficult><bndbox>'
        f'<xmin>{box[0] + first:g}</xmin><ymin>{box[1] + first:g}</ymin>'
        f'<xmax>{box[2]:g}</xmax><ymax>{box[3]:g}</ymax></bndbox></object>'
        for label, box in boxes.items()
    )
    return (
        f'<annotation><filename>{name}</filename><size><width>{size[0]}'
        f'</width><height>{size[1]}</height><depth>3</depth></size>{objects}'
        '</annotation>'
    )


def voc(root, number=6):
    """XML files beside the pictures."""
    for i in range(number):
        write_picture(root / f'{i}.jpg', i)
        write_text(root / f'{i}.xml', voc_xml(f'{i}.jpg'))
    return root


def voc_devkit(root, number=6):
    """``JPEGImages``, ``Annotations`` and ``ImageSets``, counted from 1."""
    for i in range(number):
        write_picture(root / 'JPEGImages' / f'{i}.jpg', i)
        content = voc_xml(f'{i}.jpg', first=1)
        write_text(root / 'Annotations' / f'{i}.xml', content)
    lists = root / 'ImageSets' / 'Main'
    write_text(lists / 'train.txt', '0\n1\n2\n3\n')
    write_text(lists / 'val.txt', '4\n5\n')
    return root


def csv_boxes(root, number=6, header='image,xmin,ymin,xmax,ymax,label'):
    """``boxes.csv`` beside the pictures."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / 'boxes.csv').open('w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(header.split(','))
        for i in range(number):
            write_picture(root / f'{i}.jpg', i)
            for label, box in BOXES.items():
                rows.writerow([f'{i}.jpg', *(f'{c:g}' for c in box), label])
    return root


def yolo_rows(boxes=BOXES, size=SIZE, segments=False):
    """The rows of a text file; as rectangles if polygons are asked for."""
    rows = []
    for c, (left, top, right, bottom) in enumerate(boxes.values()):
        if segments:
            values = corners((left, top, right, bottom))
            values = [v / size[i % 2] for i, v in enumerate(values)]
        else:
            values = [
                (left + right) / 2 / size[0],
                (top + bottom) / 2 / size[1],
                (right - left) / size[0],
                (bottom - top) / size[1],
            ]
        rows.append(' '.join([str(c), *map(repr, values)]))
    return '\n'.join(rows)


def yolo(root, splits=('train', 'val'), number=4, segments=False):
    """``images/SPLIT``, ``labels/SPLIT`` and ``data.yaml``."""
    for s, split in enumerate(splits):
        for i in range(number):
            write_picture(root / 'images' / split / f'{i}.jpg', 10 * s + i)
            rows = yolo_rows(segments=segments)
            write_text(root / 'labels' / split / f'{i}.txt', rows)
    lines = [f'{split}: images/{split}' for split in splits]
    names = ', '.join(BOXES)
    write_text(root / 'data.yaml', '\n'.join([*lines, f'names: [{names}]']))
    return root


def yolo_flat(root, number=5):
    """Text files beside the pictures, and ``classes.txt``."""
    for i in range(number):
        write_picture(root / f'{i}.jpg', i)
        write_text(root / f'{i}.txt', yolo_rows())
    write_text(root / 'classes.txt', '\n'.join(BOXES))
    return root


def labelme(root, number=6, kind='rectangle'):
    """A json beside each picture."""
    for i in range(number):
        write_picture(root / f'{i}.jpg', i)
        shapes = []
        for label, box in BOXES.items():
            points = [box[:2], box[2:]]
            if kind == 'polygon':
                flat = corners(box)
                points = list(zip(flat[::2], flat[1::2], strict=True))
            shapes.append(dict(label=label, points=points, shape_type=kind))
        content = dict(
            version='5.0',
            shapes=shapes,
            imagePath=f'{i}.jpg',
            imageWidth=SIZE[0],
            imageHeight=SIZE[1],
        )
        write_text(root / f'{i}.json', json.dumps(content))
    return root


def class_map():
    """The classes of a picture's pixels: 0, 1 and 2, and 255 in a corner."""
    numbers = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for number, box in enumerate(BOXES.values(), 1):
        left, top, right, bottom = map(int, box)
        numbers[top:bottom, left:right] = number
    numbers[:2, :2] = 255
    return numbers


COLOURS = [(0, 0, 0), (200, 0, 30), (0, 90, 250)]
"""The colours of the classes of label maps."""


def label_maps(root, number=6, kind='index', suffix='.jpg'):
    """``images`` and ``masks``; of kind index, palette, colour or odd."""
    for i in range(number):
        write_picture(root / 'images' / f'{i}{suffix}', i)
        numbers = class_map()
        image = Image.fromarray(numbers)
        if kind == 'palette':
            colours = [*COLOURS, *[(255, 255, 255)] * 253]
            image.putpalette([c for colour in colours for c in colour])
        elif kind == 'colour':
            table = np.full((256, 3), 255, np.uint8)
            table[:3] = COLOURS
            image = Image.fromarray(table[numbers])
        elif kind == 'odd':
            values = np.zeros(256, np.uint8)
            values[[1, 2, 255]] = 100, 200, 255
            image = Image.fromarray(values[numbers])
        (root / 'masks').mkdir(exist_ok=True)
        image.save(root / 'masks' / f'{i}.png')
    if kind == 'index':
        write_text(root / 'classes.txt', '\n'.join(['nothing', *BOXES]))
    if kind == 'colour':
        rows = [
            f'{name}:{",".join(map(str, colour))}::'
            for name, colour in zip(['nothing', *BOXES], COLOURS, strict=True)
        ]
        write_text(root / 'labelmap.txt', '\n'.join(rows))
    return root

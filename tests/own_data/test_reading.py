import json
import unicodedata
from collections import Counter
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.own_data import BOXES, write_picture, write_text


def boxes_of(picture):
    return {item.label: item.box for item in picture.objects}


def polygons(box):
    return [own_data.corners(box)]


@pytest.mark.parametrize(
    ('make', 'kind'),
    [
        (own_data.coco, 'COCO'),
        (own_data.coco_splits, 'COCO'),
        (own_data.voc, 'Pascal VOC'),
        (own_data.voc_devkit, 'Pascal VOC'),
        (own_data.csv_boxes, 'CSV of boxes'),
        (own_data.yolo, 'YOLO'),
        (own_data.yolo_flat, 'YOLO'),
        (own_data.labelme, 'LabelMe'),
        (partial(own_data.labelme, kind='polygon'), 'LabelMe'),
        (partial(own_data.yolo, segments=True), 'YOLO'),
    ],
)
def test_boxes_of_each_layout_are_the_same(tmp_path, make, kind):
    collection = read(make(tmp_path / 'data'))
    assert collection.kind == kind
    assert collection.task == 'detection'
    assert collection.classes == ('cat', 'dog')
    assert collection.reasons[0].startswith(f'Read as {kind}: ')
    assert not collection.dropped
    assert len(collection.pictures) >= 5
    for picture in collection.pictures:
        assert (picture.width, picture.height) == own_data.SIZE
        found = boxes_of(picture)
        assert list(found) == list(BOXES)
        for label, box in BOXES.items():
            assert found[label] == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize('splits', [('',), ('train', 'val', 'test')])
def test_class_folders(tmp_path, splits):
    collection = read(own_data.class_folders(tmp_path, 3, splits))
    assert (collection.kind, collection.task) == (
        'class folders',
        'classification',
    )
    found = Counter((p.split or '', p.label) for p in collection.pictures)
    assert found == {(s, c): 3 for s in splits for c in BOXES}


def test_polygons_and_run_lengths_stay_as_they_are(tmp_path):
    collection = read(own_data.coco(tmp_path / 'a', mask=polygons))
    masks = [o.mask for o in collection.pictures[0].objects]
    assert masks == [polygons(box) for box in BOXES.values()]
    assert collection.has_masks
    width, height = own_data.SIZE
    run = dict(size=[height, width], counts=[0, 100, width * height - 100])
    collection = read(own_data.coco(tmp_path / 'b', mask=lambda _: run))
    assert collection.pictures[0].objects[0].mask == run


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
@pytest.mark.parametrize('turned', [True, False])
def test_boxes_are_where_the_upright_picture_has_them(
    tmp_path, orientation, turned
):
    """A bright box, annotated before and after EXIF's rotation."""
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[6:30, 4:24] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / '0.png'
    Image.fromarray(stored).save(path, exif=exif)
    shown = cv2.imread(str(path))[..., 0]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    box, size = (expected, (48, 64)) if turned else ((4, 6, 24, 30), (64, 48))
    xml = own_data.voc_xml('0.png', {'cat': box}, size)
    write_text(tmp_path / '0.xml', xml)
    (picture,) = read(tmp_path).pictures
    assert (picture.width, picture.height) == (48, 64)
    assert boxes_of(picture) == {'cat': expected}


def test_objects_are_dropped_for_a_reason(tmp_path):
    own_data.voc(tmp_path, 1)
    bad = {
        'partly': (-5, 5, 20, 20),
        'outside': (100, 5, 120, 20),
        'swapped': (20, 5, 10, 20),
        'thin': (10, 5, 10.5, 20),
        'not': (float('nan'), 5, 10, 20),
        '': (1, 2, 30, 40),
    }
    write_text(tmp_path / '0.xml', own_data.voc_xml('0.jpg', bad))
    collection = read(tmp_path)
    assert boxes_of(collection.pictures[0]) == {'partly': (0, 5, 20, 20)}
    assert collection.dropped == {
        'part of a box outside of its picture (clipped)': 1,
        'box outside of its picture': 1,
        'empty box (no width or height, or corners swapped)': 1,
        'box narrower than a pixel (or not in pixels)': 1,
        'box that is not four numbers': 1,
        'object without a class name': 1,
    }
    assert any('for example in 0.jpg' in r for r in collection.reasons)


def test_pictures_are_dropped_for_a_reason(tmp_path):
    own_data.voc(tmp_path, 3)
    (tmp_path / '0.jpg').write_bytes(b'')
    (tmp_path / '1.jpg').unlink()
    write_picture(tmp_path / 'other.jpg', 9)
    write_picture(tmp_path / 'large.jpg', 9, (100, 100))
    write_text(tmp_path / 'large.xml', own_data.voc_xml('large.jpg'))
    collection = read(tmp_path)
    assert [p.path.name for p in collection.pictures] == ['2.jpg']
    assert collection.dropped == {
        'picture that cannot be read': 1,
        'annotation without picture': 1,
        'picture without annotation': 1,
        'picture that was annotated with another size': 1,
    }


def test_a_picture_without_objects_is_background(tmp_path):
    own_data.voc(tmp_path, 2)
    write_text(tmp_path / '0.xml', own_data.voc_xml('0.jpg', {}))
    collection = read(tmp_path)
    assert [len(p.objects) for p in collection.pictures] == [0, 2]
    assert not collection.dropped


@pytest.mark.parametrize(
    'header',
    [
        'Image Path,x1,y1,x2,y2,Class Name',
        'image_path,Left,Top,Right,Bottom,label',
    ],
)
def test_header_names_of_a_csv_are_tolerant(tmp_path, header):
    collection = read(own_data.csv_boxes(tmp_path, header=header))
    assert boxes_of(collection.pictures[0]) == BOXES


def _rewrite(root, change):
    """Change the lines of a CSV of boxes."""
    path = own_data.csv_boxes(root) / 'boxes.csv'
    lines = change(path.read_text().splitlines())
    path.write_text('\n'.join(lines))
    return read(root)


def test_a_csv_needs_no_header(tmp_path):
    collection = _rewrite(tmp_path, lambda lines: lines[1:])
    assert [boxes_of(p) for p in collection.pictures] == [BOXES] * 6
    assert 'boxes.csv has no header' in collection.reasons[0]
    # The first picture is background.
    collection = _rewrite(tmp_path, lambda lines: ['0.jpg,,,,,', *lines[3:]])
    assert [len(p.objects) for p in collection.pictures] == [0, *[2] * 5]
    with pytest.raises(UserError, match='but a CSV of boxes begins'):
        _rewrite(tmp_path, lambda lines: ['0.jpg,1,2,x,4,cat', *lines[2:]])


def test_decimal_commas_between_semicolons(tmp_path):
    def change(lines):
        lines = [line.replace(',', ';') for line in lines]
        return [line.replace(';4;', ';4,5;') for line in lines]

    collection = _rewrite(tmp_path, change)
    moved = {**BOXES, 'cat': (4.5, *BOXES['cat'][1:])}
    assert [boxes_of(p) for p in collection.pictures] == [moved] * 6
    # Between commas this may be a thousand.
    collection = _rewrite(
        tmp_path,
        lambda lines: [row.replace(',4,', ',"4,5",') for row in lines],
    )
    assert collection.dropped == {'box that is not four numbers': 6}


def test_zeros_in_a_csv_are_no_box(tmp_path):
    collection = _rewrite(
        tmp_path, lambda lines: [*lines[:-2], '5.jpg,0,0,0,0,']
    )
    assert [len(p.objects) for p in collection.pictures] == [*[2] * 5, 0]
    assert not collection.dropped


def test_columns_of_a_csv_that_are_chosen(tmp_path):
    """Splits in a column, and one of two columns with a class."""

    def change(lines):
        header, *rows = lines
        rows = [
            f'{row},pet,{"train" if row[0] < "4" else "Validation"}'
            for row in rows
        ]
        rows[0] = rows[0].replace('train', 'test')
        return [f'{header},class,split', *rows]

    collection = _rewrite(tmp_path, change)
    assert collection.classes == ('cat', 'dog')
    assert any(
        'column label, not of class' in text for text in collection.reasons
    )
    splits = [p.split for p in collection.pictures]
    assert splits == ['test', *['train'] * 3, *['val'] * 2]
    reason = 'second split of a picture (the first is kept)'
    assert collection.dropped == {reason: 1}


def test_difficult_objects_are_kept_and_said(tmp_path):
    own_data.voc(tmp_path, 1)
    xml = own_data.voc_xml('0.jpg').replace('<difficult>0', '<difficult>1')
    write_text(tmp_path / '0.xml', xml)
    collection = read(tmp_path)
    assert len(collection.pictures[0].objects) == 2
    assert '2 objects marked as difficult are kept.' in collection.reasons


def _unknown(root):
    write_text(root / 'notes.md', 'nothing')


def _several(root):
    own_data.csv_boxes(own_data.voc(root))


def _no_match(root):
    own_data.csv_boxes(root)
    for file in root.glob('*.jpg'):
        file.rename(root / f'new{file.name}')


def _no_pictures(root):
    own_data.voc(root)
    for file in root.glob('*.jpg'):
        file.unlink()


def _one_class(root):
    for i in range(4):
        write_picture(root / 'cat' / f'{i}.jpg', i)


def _folders_differ(root):
    own_data.class_folders(root, 2, ('train', 'val'))
    write_picture(root / 'val' / 'bird' / '0.jpg', 7)


def _categories_differ(root):
    path = own_data.coco_splits(root) / 'valid' / '_annotations.coco.json'
    path.write_text(path.read_text().replace('"cat"', '"bird"'))


def _no_objects(root):
    own_data.voc(root, 1)
    write_text(root / '0.xml', own_data.voc_xml('0.jpg', {}))


def _escape(root):
    own_data.coco(root)
    content = json.dumps(own_data.coco_content(['../../../secret.jpg']))
    write_text(root / 'annotations' / 'instances.json', content)


def _csv_in_utf_16(root):
    own_data.csv_boxes(root)
    path = root / 'boxes.csv'
    path.write_text(path.read_text(), encoding='utf-16')


def _csv_without_labels(root):
    own_data.csv_boxes(root, header='image,xmin,ymin,xmax,ymax,score')


def _yolo_in_pixels(root):
    own_data.yolo_flat(root)
    for path in root.glob('[0-9].txt'):
        path.write_text('0 14 18 20 24')


def _maps_with_losses(root):
    own_data.label_maps(root)
    for path in (root / 'masks').iterdir():
        path.rename(path.with_suffix('.jpg'))


def _nested_classes(root):
    own_data.class_folders(root / 'all' / 'pets')


def _unknown_pictures(root):
    own_data.class_folders(root)
    for path in root.rglob('*.jpg'):
        path.rename(path.with_suffix('.heic'))


def _ambiguous(root):
    write_picture(root / 'a' / '0.jpg', 0)
    write_picture(root / 'b' / '0.jpg', 1)
    write_text(root / 'x.xml', own_data.voc_xml('0.jpg'))


def _entities(root):
    own_data.voc(root, 1)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]>' + own_data.voc_xml('0.jpg')
    write_text(root / '0.xml', bomb)


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (_unknown, 'no annotations that are known.*looked for COCO'),
        (_several, 'several annotations: Pascal VOC .* and CSV of boxes'),
        (_no_match, 'name no picture that is there, such as 0.jpg'),
        (_no_pictures, 'has no pictures: put them'),
        (_one_class, r'one class only \(cat\)'),
        (_folders_differ, r'val that train does not have \(bird\)'),
        (_categories_differ, 'other categories in valid'),
        (_no_objects, 'has no usable object'),
        (_escape, 'names a picture outside of'),
        (_csv_in_utf_16, 'boxes.csv is not text in UTF-8'),
        (_csv_without_labels, 'begins with .image,xmin.*score., but a CSV'),
        (_yolo_in_pixels, "0.txt begins with '0 14 18 20 24', but YOLO"),
        (_maps_with_losses, 'a format without losses'),
        (_nested_classes, r'these are in all/pets, give .*all/pets$'),
        (_unknown_pictures, r'but \.heic: convert them'),
        (_ambiguous, 'fits several pictures'),
        (_entities, 'document type declaration'),
    ],
)
def test_wrong_data_is_an_error_with_a_remedy(tmp_path, make, part):
    root = tmp_path / 'data'
    make(root)
    with pytest.raises(UserError, match=part):
        read(root)


def _upper_case(root, make):
    make(root)
    for path in [p for p in root.rglob('*') if p.is_file()]:
        if path.name not in ('classes.txt', 'train.txt', 'val.txt'):
            path.rename(path.with_suffix(path.suffix.upper()))


def _rename(root, file, change):
    """Change the names of pictures in an annotation file."""
    path = root / file
    text = path.read_text()
    for i in range(6):
        text = text.replace(f'{i}.jpg', change(f'{i}.jpg'))
    path.write_text(text)


@pytest.mark.parametrize(
    'make',
    [
        own_data.coco, own_data.voc, own_data.voc_devkit, own_data.csv_boxes,
        own_data.yolo_flat, own_data.labelme, own_data.label_maps,
    ],
)  # fmt: skip
def test_suffixes_in_upper_case(tmp_path, make):
    make(tmp_path / 'usual')
    _upper_case(tmp_path / 'upper', make)
    usual, upper = (read(tmp_path / name) for name in ('usual', 'upper'))
    assert [p.objects for p in upper.pictures] == [
        p.objects for p in usual.pictures
    ]
    assert upper.classes == usual.classes
    assert not upper.dropped


@pytest.mark.parametrize(
    'change',
    [
        lambda name: f'/home/me/pets/{name}',
        lambda name: f'D:\\pets\\{name}',
        lambda name: f'..\\..\\pets\\{name}',
        lambda name: name.upper(),
    ],
)
def test_names_that_other_machines_wrote(tmp_path, change):
    own_data.csv_boxes(tmp_path)
    _rename(tmp_path, 'boxes.csv', change)
    collection = read(tmp_path)
    assert [len(p.objects) for p in collection.pictures] == [2] * 6


def test_accents_in_another_encoding(tmp_path):
    """As macOS writes the names of files."""
    own_data.voc(tmp_path, 1)
    name = 'größe.jpg'
    (tmp_path / '0.jpg').rename(tmp_path / unicodedata.normalize('NFD', name))
    (tmp_path / '0.xml').write_text(own_data.voc_xml(name))
    assert len(read(tmp_path).pictures) == 1


def test_byte_order_marks(tmp_path):
    own_data.yolo(tmp_path)
    for path in [*tmp_path.rglob('*.txt'), tmp_path / 'data.yaml']:
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    collection = read(tmp_path)
    assert collection.classes == ('cat', 'dog')
    assert [len(p.objects) for p in collection.pictures] == [2] * 8


def test_wrong_tasks_are_errors(tmp_path):
    own_data.voc(tmp_path / 'voc', 1)
    with pytest.raises(UserError, match='not for classification'):
        read(tmp_path / 'voc', 'classification')
    with pytest.raises(UserError, match='use one of classification'):
        read(tmp_path / 'voc', 'pose')
    own_data.coco(tmp_path / 'coco')
    with pytest.raises(UserError, match='12 of 12 objects have only a box'):
        read(tmp_path / 'coco', 'segmentation')
    with pytest.raises(UserError, match='is not a folder'):
        read(tmp_path / 'nowhere')


def test_links_in_circles_are_followed_once(tmp_path):
    own_data.voc(tmp_path, 2)
    (tmp_path / 'circle').symlink_to(tmp_path)
    assert len(read(tmp_path).pictures) == 2


@pytest.mark.parametrize('target', ['..', '/'])
def test_links_to_what_lies_around_the_data_are_not_followed(tmp_path, target):
    data = tmp_path / 'data'
    own_data.voc(data, 2)
    # It would be found by its name, and read.
    own_data.voc(tmp_path / 'another', 3)
    (data / 'out').symlink_to(target)
    assert len(read(data).pictures) == 2


def test_links_to_other_folders_are_followed(tmp_path):
    own_data.voc(tmp_path / 'disk', 2)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/linked').symlink_to(tmp_path / 'disk')
    assert len(read(tmp_path / 'data').pictures) == 2


def test_yolo_splits_are_those_of_the_yaml(tmp_path):
    own_data.yolo(tmp_path, ('one', 'two'))
    write_text(
        tmp_path / 'data.yaml',
        'train: ../images/one\nval: images/two\nnames: {0: cat, 1: dog}',
    )
    collection = read(tmp_path)
    assert {(p.path.parent.name, p.split) for p in collection.pictures} == {
        ('one', 'train'),
        ('two', 'val'),
    }


def test_yolo_pictures_without_text_are_background(tmp_path):
    own_data.yolo_flat(tmp_path, 3)
    (tmp_path / '0.txt').unlink()
    write_text(tmp_path / '1.txt', '')
    counts = [len(p.objects) for p in read(tmp_path).pictures]
    assert counts == [0, 0, 2]


def test_yolo_rows_are_dropped_for_a_reason(tmp_path):
    own_data.yolo_flat(tmp_path, 1)
    rows = ['9 .5 .5 .2 .2', '0 .5 .5 .2 .2 .9', '0 .5 .5 x .2', 'cat 1 2 3 4']
    text = '\n'.join([own_data.yolo_rows(), *rows])
    write_text(tmp_path / '0.txt', text)
    collection = read(tmp_path)
    assert len(collection.pictures[0].objects) == 2
    assert collection.dropped == {
        'object of an unknown class number': 2,
        'row that is neither a box nor a polygon': 1,
        'box that is not four numbers': 1,
    }


def test_labelme_circles_and_other_shapes(tmp_path):
    own_data.labelme(tmp_path, 1)
    path = tmp_path / '0.json'
    content = json.loads(path.read_text())
    content['shapes'] = [
        dict(label='round', points=[[30, 20], [40, 20]], shape_type='circle'),
        dict(label='line', points=[[1, 2], [3, 4]], shape_type='line'),
    ]
    path.write_text(json.dumps(content))
    collection = read(tmp_path)
    (item,) = collection.pictures[0].objects
    assert item.box == pytest.approx((20, 10, 40, 30))
    reason = 'shape that is no polygon, rectangle or circle'
    assert collection.dropped == {reason: 1}


@pytest.mark.parametrize(
    ('kind', 'names', 'values'),
    [
        ('index', ('nothing', 'cat', 'dog'), None),
        ('palette', ('0', '1', '2'), None),
        ('odd', ('0', '100', '200'), (0, 100, 200)),
        ('colour', ('nothing', 'cat', 'dog'), tuple(own_data.COLOURS)),
    ],
)
def test_label_maps(tmp_path, kind, names, values):
    collection = read(own_data.label_maps(tmp_path, 4, kind))
    assert (collection.kind, collection.task) == ('label maps', 'segmentation')
    assert collection.classes == names
    assert collection.label_values == values
    if kind in ('palette', 'colour'):
        assert collection.palette == tuple(own_data.COLOURS)
    assert not collection.dropped
    assert len(collection.pictures) == 4


def test_label_maps_are_dropped_for_a_reason(tmp_path):
    own_data.label_maps(tmp_path, 4)
    (tmp_path / 'masks/0.png').write_bytes(b'no')
    (tmp_path / 'masks/1.png').unlink()
    (tmp_path / 'images/2.jpg').unlink()
    write_picture(tmp_path / 'images/4.jpg', 4, (20, 20))
    Image.fromarray(own_data.class_map()).save(tmp_path / 'masks/4.png')
    collection = read(tmp_path)
    assert [p.path.name for p in collection.pictures] == ['3.jpg']
    assert collection.dropped == {
        'label map that cannot be read': 1,
        'picture without label map': 1,
        'label map without picture': 1,
        'label map of another size than its picture': 1,
    }


def test_label_maps_have_values_that_are_named(tmp_path):
    own_data.label_maps(tmp_path, 2)
    write_text(tmp_path / 'classes.txt', 'nothing\ncat')
    with pytest.raises(UserError, match=r'names 2 classes.*the values 2'):
        read(tmp_path)

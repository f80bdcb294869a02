"""Annotations as they are found in use: exported, renamed, merged by hand."""

import json
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.own_data import BOXES, SIZE, write_picture, write_text


def boxes_of(picture):
    return {item.label: item.box for item in picture.objects}


def splits_of(collection):
    return Counter(p.split for p in collection.pictures)


# ---------------------------------------------------------------- Pascal VOC
def test_names_in_xml_files_of_copied_files(tmp_path):
    """Each XML file was copied from that of 0.jpg, which is there, too."""
    own_data.voc(tmp_path, 3)
    for i in range(3):
        write_text(tmp_path / f'{i}.xml', own_data.voc_xml('0.jpg'))
    collection = read(tmp_path)
    assert [p.path.name for p in collection.pictures] == [
        '0.jpg', '1.jpg', '2.jpg',
    ]  # fmt: skip
    assert not collection.dropped
    assert any(
        '2 XML files have another <filename>' in text
        for text in collection.reasons
    )


def test_xml_files_numbered_otherwise_than_pictures(tmp_path):
    """The names in the files decide, as long as each is another one."""
    for i in range(3):
        write_picture(tmp_path / f'{i + 1}.jpg', i)
        xml = own_data.voc_xml(f'{i + 1}.jpg', {f'class{i}': BOXES['cat']})
        write_text(tmp_path / f'{i}.xml', xml)
    collection = read(tmp_path)
    assert not collection.dropped
    assert {p.path.name: list(boxes_of(p)) for p in collection.pictures} == {
        f'{i + 1}.jpg': [f'class{i}'] for i in range(3)
    }


def test_a_text_file_that_is_no_list_of_voc(tmp_path):
    own_data.voc(tmp_path, 5)
    write_text(tmp_path / 'logs/train.txt', 'epoch 1 loss 3.2\n2\ndone')
    collection = read(tmp_path)
    assert splits_of(collection) == {None: 5}
    assert not collection.dropped


def test_a_list_beside_folders_of_splits(tmp_path):
    for split, names in dict(train='01', val='23').items():
        for name in names:
            write_picture(tmp_path / split / f'{name}.jpg', int(name))
            xml = own_data.voc_xml(f'{name}.jpg')
            write_text(tmp_path / split / f'{name}.xml', xml)
    write_text(tmp_path / 'train.txt', '0\n1')
    collection = read(tmp_path)
    assert splits_of(collection) == dict(train=2, val=2)
    assert not collection.dropped


@pytest.mark.parametrize(
    ('folder', 'left'), [('ImageSets/Main', 3), ('ImageSets', 4)]
)
def test_pixels_are_counted_from_1_in_vocdevkit_only(tmp_path, folder, left):
    for i in range(2):
        write_picture(tmp_path / f'{i}.jpg', i)
        xml = own_data.voc_xml(f'{i}.jpg', {'cat': (4, 6, 24, 30)})
        write_text(tmp_path / f'{i}.xml', xml)
    write_text(tmp_path / folder / 'train.txt', '0\n1')
    boxes = [boxes_of(p)['cat'] for p in read(tmp_path).pictures]
    assert [box[0] for box in boxes] == [left, left]


def test_pictures_that_xml_files_of_other_names_name(tmp_path):
    own_data.voc(tmp_path, 2)
    for i in range(2):
        (tmp_path / f'{i}.xml').rename(tmp_path / f'note{i}.xml')
    assert [p.path.name for p in read(tmp_path).pictures] == ['0.jpg', '1.jpg']


def test_equal_names_in_folders_side_by_side(tmp_path):
    for seed, place in enumerate(('north', 'south')):
        for i in range(2):
            name = f'{i}.jpg'
            write_picture(tmp_path / 'images' / place / name, 10 * seed + i)
            xml = own_data.voc_xml(name, {place: BOXES['cat']})
            write_text(tmp_path / 'xml' / place / f'{i}.xml', xml)
    collection = read(tmp_path)
    assert len(collection.pictures) == 4
    assert all(
        list(boxes_of(p)) == [p.path.parent.name] for p in collection.pictures
    )


@pytest.mark.parametrize(
    ('lists', 'expected'),
    [
        (dict(trainval='0 1 2 3', test='4 5'), dict(train=4, test=2)),
        (dict(trainval='0 1 2 3 4 5', train='0 1'), dict(train=2, val=4)),
        (dict(trainval='0 1 2', val='2'), dict(train=2, val=1)),
        (dict(train='0.jpg 1.jpg 2.jpg', val='3.xml'), dict(train=3, val=1)),
        (
            dict(train='/data/JPEGImages/0.jpg a\\1.jpg', valid='./2.jpg'),
            dict(train=2, val=1),
        ),
        (dict(default='0 1 2 3 4 5'), {None: 6}),
    ],
)
@pytest.mark.parametrize('folder', ['ImageSets/Main', 'imagesets', '.'])
def test_lists_of_voc(tmp_path, lists, expected, folder):
    own_data.voc_devkit(tmp_path)
    shutil.rmtree(tmp_path / 'ImageSets')
    for name, content in lists.items():
        lines = '\r\n'.join(content.split())
        write_text(tmp_path / folder / f'{name}.txt', lines)
    collection = read(tmp_path)
    assert splits_of(collection) == expected
    left = 6 - sum(expected.values())
    assert collection.dropped['picture that no list names'] == left


def test_lists_name_folders(tmp_path):
    for seed, place in enumerate(('a', 'b')):
        write_picture(tmp_path / 'JPEGImages' / place / '0.jpg', seed)
        write_text(
            tmp_path / 'Annotations' / place / '0.xml',
            own_data.voc_xml('0.jpg'),
        )
    write_text(tmp_path / 'ImageSets/Main/train.txt', 'a/0\nlost')
    write_text(tmp_path / 'ImageSets/Main/val.txt', 'b/0')
    collection = read(tmp_path)
    assert {p.path.parent.name: p.split for p in collection.pictures} == {
        'a': 'train',
        'b': 'val',
    }
    assert collection.dropped == {'name in a list without an XML file': 1}


def test_a_name_in_two_lists_is_an_error(tmp_path):
    own_data.voc_devkit(tmp_path)
    write_text(tmp_path / 'ImageSets/Main/val.txt', '3')
    with pytest.raises(UserError, match='names 3, as does the list for'):
        read(tmp_path)


def test_xml_of_other_kinds_is_not_voc(tmp_path):
    write_picture(tmp_path / 'images/0.jpg', 0)
    write_text(tmp_path / 'annotations.xml', '<annotations><image id="0"/>')
    write_text(tmp_path / 'images/0.jpg.aux.xml', '<PAMDataset/>')
    with pytest.raises(UserError, match="but Pascal VOC's XML has"):
        read(tmp_path)


# ----------------------------------------------------------------------- CSV
def _table(root, header, row, number=6, name='boxes.csv'):
    """A CSV; ``row`` makes the cells of a box."""
    lines = [header]
    for i in range(number):
        write_picture(root / f'{i}.jpg', i)
        lines += [
            ','.join(map(str, row(f'{i}.jpg', label, *box)))
            for label, box in BOXES.items()
        ]
    write_text(root / name, '\n'.join(lines))


def _lengths(name, label, left, top, right, bottom):
    return name, left, top, right - left, bottom - top, label


def _centres(name, label, left, top, right, bottom):
    middle = (left + right) / 2, (top + bottom) / 2
    return name, label, *middle, right - left, bottom - top


def _shares(name, label, left, top, right, bottom):
    width, height = SIZE
    return (
        *(name.removesuffix('.jpg'), 'x', label, 1),
        *(left / width, right / width, top / height, bottom / height),
    )


@pytest.mark.parametrize(
    ('header', 'row', 'part'),
    [
        ('image,x,y,width,height,label', _lengths, 'left upper corner'),
        ('file,bbox_x,bbox_y,bbox_w,bbox_h,class', _lengths, 'left upper'),
        ('image,class,x_center,y_center,width,height', _centres, 'centre'),
        (
            'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax',
            _shares,
            'edges, in shares',
        ),
    ],
)
def test_boxes_of_a_csv_in_other_forms(tmp_path, header, row, part):
    _table(tmp_path, header, row)
    collection = read(tmp_path)
    assert not collection.dropped
    assert len(collection.pictures) == 6
    for picture in collection.pictures:
        found = boxes_of(picture)
        for label, box in BOXES.items():
            assert found[label] == pytest.approx(box, abs=1e-9)
    assert any(part in text for text in collection.reasons)


def test_width_and_height_beside_corners_are_those_of_pictures(tmp_path):
    header = 'filename,width,height,class,xmin,ymin,xmax,ymax'
    _table(tmp_path, header, lambda n, label, *box: [n, *SIZE, label, *box])
    write_picture(tmp_path / '5.jpg', 5, (80, 80))
    collection = read(tmp_path)
    assert [boxes_of(p) for p in collection.pictures] == [BOXES] * 5
    reason = 'picture that was annotated with another size'
    assert collection.dropped == {reason: 1}


@pytest.mark.parametrize(
    ('header', 'row'),
    [
        ('image,width,height,x,y,w,h,label', '{0},64,48,4,6,20,24,cat'),
        (
            'image,width,height,bbox_x,bbox_y,bbox_w,bbox_h,label',
            '{0},64,48,4,6,20,24,cat',
        ),
        (
            'image,cx,cy,w,h,width,height,label',
            '{0},0.21875,0.375,0.3125,0.5,64,48,cat',
        ),
    ],
)
def test_width_and_height_beside_lengths_are_those_of_pictures(
    tmp_path, header, row
):
    assert SIZE == (64, 48)
    write_picture(tmp_path / '0.jpg', 0)
    write_text(tmp_path / 'boxes.csv', f'{header}\n{row.format("0.jpg")}\n')
    collection = read(tmp_path)
    (picture,) = collection.pictures
    np.testing.assert_allclose(boxes_of(picture)['cat'], (4, 6, 24, 30))
    assert not collection.dropped


@pytest.mark.parametrize('column', [True, False], ids=['column', 'folders'])
def test_rows_and_pictures_before_the_folder_of_the_only_csv(tmp_path, column):
    lines = ['image,xmin,ymin,xmax,ymax,label,split']
    for i, split in enumerate(('train', 'train', 'train', 'val', 'val')):
        place = 'train' if column else split
        write_picture(tmp_path / place / f'{i}.jpg', i)
        name = f'{i}.jpg' if column else f'../{place}/{i}.jpg'
        lines.append(f'{name},4,6,24,30,cat,{split if column else ""}')
    write_text(tmp_path / 'train/all.csv', '\n'.join(lines))
    assert splits_of(read(tmp_path)) == dict(train=3, val=2)


def test_equal_names_in_the_folders_of_csv_files(tmp_path):
    for seed, name in enumerate(('north', 'south')):
        write_picture(tmp_path / name / '0.jpg', seed)
        lines = f'image,xmin,ymin,xmax,ymax,label\n0.jpg,4,6,24,30,{name}\n'
        write_text(tmp_path / name / 'boxes.csv', lines)
    pictures = read(tmp_path).pictures
    assert [list(boxes_of(p)) for p in pictures] == [['north'], ['south']]


def test_classes_by_number(tmp_path):
    numbers = dict(cat=10, dog=9)
    _table(
        tmp_path,
        'image,xmin,ymin,xmax,ymax,class_id',
        lambda name, label, *box: [name, *box, numbers[label]],
    )
    assert read(tmp_path).classes == ('9', '10')


def test_a_csv_for_each_part_of_the_data(tmp_path):
    for name in ('north', 'south'):
        own_data.csv_boxes(tmp_path / name, 2)
        path = tmp_path / name / 'boxes.csv'
        path.write_text(path.read_text().replace('.jpg', f'{name}.jpg'))
        for i in range(2):
            picture = tmp_path / name / f'{i}.jpg'
            picture.rename(picture.with_name(f'{i}{name}.jpg'))
    collection = read(tmp_path)
    assert splits_of(collection) == {None: 4}
    assert (
        'north/boxes.csv, south/boxes.csv: boxes are edges, in pixels.'
        in collection.reasons
    )
    # Two versions of the same boxes are not for each other's pictures.
    shutil.copy(tmp_path / 'north/boxes.csv', tmp_path / 'north/new.csv')
    with pytest.raises(UserError, match='whose splits are unclear'):
        read(tmp_path)


def test_a_csv_in_the_folder_of_each_split(tmp_path):
    for seed, split in enumerate(('train', 'valid')):
        own_data.csv_boxes(tmp_path / split, 2)
        path = tmp_path / split / 'boxes.csv'
        path.rename(path.with_name('_annotations.csv'))
        write_picture(tmp_path / split / '0.jpg', 20 + seed)
    assert splits_of(read(tmp_path)) == {'train': 2, 'val': 2}


# ---------------------------------------------------------------------- YOLO
def test_yolo_of_ultralytics(tmp_path):
    own_data.yolo(tmp_path)
    content = [
        'path: ../datasets/pets',
        'train: [images/train]',
        'val: images/val',
        'test:',
        "names: {'0': cat, '1': dog}",
    ]
    write_text(tmp_path / 'pets.yaml', '\n'.join(content))
    (tmp_path / 'data.yaml').unlink()
    collection = read(tmp_path)
    assert splits_of(collection) == {'train': 4, 'val': 4}
    assert collection.classes == ('cat', 'dog')


def test_yolo_in_folders_in_upper_case(tmp_path):
    own_data.yolo(tmp_path)
    for name in ('images', 'labels'):
        (tmp_path / name).rename(tmp_path / name.title())
    (tmp_path / 'Labels/train/0.txt').rename(tmp_path / 'Labels/lost.txt')
    collection = read(tmp_path)
    assert sum(len(p.objects) for p in collection.pictures) == 14
    assert collection.dropped == {'annotation without picture': 1}


def test_lists_of_darknet(tmp_path):
    own_data.yolo_flat(tmp_path)
    write_text(tmp_path / 'train.txt', 'data/obj/0.jpg\ndata/obj/1.jpg\n')
    write_text(tmp_path / 'valid.txt', 'data/obj/2.jpg\n')
    assert splits_of(read(tmp_path)) == {'train': 2, 'val': 1, None: 2}


def test_keypoints_are_refused(tmp_path):
    own_data.yolo(tmp_path)
    with (tmp_path / 'data.yaml').open('a') as file:
        file.write('\nkpt_shape: [2, 3]')
    with pytest.raises(UserError, match='describes keypoints'):
        read(tmp_path)


# ---------------------------------------------------------------- label maps
def _in_three_channels(root, change=lambda numbers: numbers):
    for path in (root / 'masks').iterdir():
        grey = change(np.array(Image.open(path)))
        Image.fromarray(np.dstack([grey] * 3)).save(path)


def test_numbers_in_three_channels(tmp_path):
    """As OpenCV writes them for many."""
    own_data.label_maps(tmp_path / 'data', 4)
    _in_three_channels(tmp_path / 'data')
    collection = read(tmp_path / 'data')
    assert collection.classes == ('nothing', 'cat', 'dog')
    prepared = prepare(collection, tmp_path / 'out')
    written = Image.open(tmp_path / 'out/label_maps/images/0.png')
    np.testing.assert_array_equal(np.array(written), own_data.class_map())
    assert set(prepared.splits['train'].objects) == {'nothing', 'cat', 'dog'}


def test_black_and_white_in_three_channels(tmp_path):
    own_data.label_maps(tmp_path, 4, 'odd')
    _in_three_channels(
        tmp_path, lambda v: np.where(v == 100, 255, 0).astype(np.uint8)
    )
    collection = read(tmp_path)
    assert collection.classes == ('background', 'object')
    assert collection.label_values == ((0, 0, 0), (255, 255, 255))


def test_greys_that_differ_are_colours(tmp_path):
    own_data.label_maps(tmp_path, 4, 'odd')
    _in_three_channels(tmp_path)
    assert read(tmp_path).classes == (
        '#000000', '#646464', '#c8c8c8', '#ffffff',
    )  # fmt: skip


def test_smoothed_label_maps_are_an_error(tmp_path):
    own_data.label_maps(tmp_path, 4)
    (tmp_path / 'classes.txt').unlink()
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:48, None], (1, 64))
    for number, path in enumerate(sorted((tmp_path / 'masks').iterdir())):
        Image.fromarray(ramp + 48 * number).save(path)
    read(tmp_path)  # 192 classes
    write_picture(tmp_path / 'images/4.jpg', 4)
    Image.fromarray(ramp + 192).save(tmp_path / 'masks/4.png')
    with pytest.raises(UserError, match='240 values and no classes'):
        read(tmp_path)


# ------------------------------------------------------------------ pictures
@pytest.mark.parametrize(('bits', 'warned'), [(12, True), (16, False)])
def test_pictures_that_are_black_with_8_bits(tmp_path, bits, warned):
    root = own_data.voc(tmp_path / 'data', 5)
    for i in range(5):
        (root / f'{i}.jpg').unlink()
        pixels = np.random.default_rng(i).integers(
            0, 2**bits, (SIZE[1], SIZE[0], 3), 'uint16'
        )
        cv2.imwrite(str(root / f'{i}.png'), pixels)
        write_text(root / f'{i}.xml', own_data.voc_xml(f'{i}.png'))
    reasons = prepare(read(root), tmp_path / 'out').collection.reasons
    assert any('nearly black' in text for text in reasons) == warned


def test_pictures_for_printing(tmp_path):
    root = own_data.voc(tmp_path / 'data', 4)
    for i in range(4):
        with Image.open(root / f'{i}.jpg') as image:
            image.convert('CMYK').save(root / f'{i}.jpg')
    result = prepare(read(root), tmp_path / 'out')
    content = json.loads(result.splits['train'].ann_file.read_text())
    assert len(content['images']) == 3
    assert not result.collection.dropped

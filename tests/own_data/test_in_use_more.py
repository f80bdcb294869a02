"""More annotations as they are found in use: leftovers, copies, old lists."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.own_data import write_text

NOT_FOUND = 'picture in a list that cannot be found'


def splits_of(collection):
    return Counter(p.split for p in collection.pictures)


# ---------------------------------------------------------------------- YOLO
@pytest.mark.parametrize(
    'line', ['../obj/gone.jpg', 'data/gone.jpg', '/data/gone.jpg']
)
def test_pictures_in_lists_that_are_not_there(tmp_path, line):
    own_data.yolo_flat(tmp_path)
    write_text(tmp_path / 'train.txt', f'obj/0.jpg\n{line}\n')
    collection = read(tmp_path)
    assert collection.dropped == {NOT_FOUND: 1}
    assert any(NOT_FOUND in reason for reason in collection.reasons)
    assert splits_of(collection) == {'train': 1, None: 4}


def test_pictures_in_a_list_of_the_yaml_that_are_not_there(tmp_path):
    own_data.yolo(tmp_path)
    write_text(tmp_path / 'list.txt', 'images/train/0.jpg\nimages/gone.jpg')
    content = 'train: list.txt\nval: images/val\nnames: [cat, dog]'
    write_text(tmp_path / 'data.yaml', content)
    collection = read(tmp_path)
    assert collection.dropped == {NOT_FOUND: 1}
    write_text(tmp_path / 'list.txt', 'images/train/0.jpg\n../gone.jpg')
    with pytest.raises(UserError, match='names a picture outside'):
        read(tmp_path)


def test_ambiguous_names_in_lists_are_counted(tmp_path):
    for place in ('north', 'south'):
        own_data.yolo_flat(tmp_path / place, 2)
    write_text(tmp_path / 'train.txt', 'obj/0.jpg\nnorth/1.jpg\n')
    collection = read(tmp_path)
    assert collection.dropped == {NOT_FOUND: 1}
    assert splits_of(collection) == {'train': 1, None: 3}


def test_a_picture_in_two_lists_is_an_error(tmp_path):
    own_data.yolo_flat(tmp_path)
    write_text(tmp_path / 'train.txt', 'obj/0.jpg\nobj/1.jpg\n')
    write_text(tmp_path / 'valid.txt', 'obj/1.jpg\nobj/2.jpg\n')
    with pytest.raises(UserError, match=r'names 1\.jpg, as does the list for'):
        read(tmp_path)


def test_split_folders_count_more_than_leftover_lists(tmp_path):
    own_data.yolo(tmp_path)
    (tmp_path / 'data.yaml').unlink()
    lines = 'images/train/0.jpg\nimages/val/1.jpg\nimages/val/2.jpg\n'
    write_text(tmp_path / 'test.txt', lines)
    collection = read(tmp_path)
    assert splits_of(collection) == {'train': 4, 'val': 4}
    assert any('test.txt are not used' in r for r in collection.reasons)


def test_lists_divide_the_pictures_of_one_folder(tmp_path):
    own_data.yolo_flat(tmp_path / 'train', 3)
    write_text(tmp_path / 'train.txt', 'train/0.jpg\ntrain/1.jpg\n')
    write_text(tmp_path / 'valid.txt', 'train/2.jpg\n')
    assert splits_of(read(tmp_path)) == {'train': 2, 'val': 1}


@pytest.mark.parametrize('name', ['Images', 'images'])
def test_labels_with_the_folder_of_the_pictures(tmp_path, name):
    own_data.yolo_flat(tmp_path / name, 2)
    for i in range(2):
        (tmp_path / 'labels' / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / f'{i}.txt').rename(
            tmp_path / 'labels' / name / f'{i}.txt'
        )
    collection = read(tmp_path)
    assert collection.kind == 'YOLO'
    assert [len(p.objects) for p in collection.pictures] == [2, 2]
    # Where there are both, YOLO's own place counts.
    write_text(tmp_path / 'labels/0.txt', '0 0.5 0.5 0.2 0.2')
    collection = read(tmp_path)
    assert [len(p.objects) for p in collection.pictures] == [1, 2]
    assert collection.dropped == {'annotation without picture': 1}


# -------------------------------------------------------------------- copies
def test_copies_that_are_all_of_a_class_are_an_error(tmp_path):
    root = tmp_path / 'data'
    own_data.class_folders(root, 3, ('train', 'val'))
    for i in range(3):
        shutil.copy(root / f'train/cat/{i}.jpg', root / f'val/cat/c{i}.jpg')
    with pytest.raises(
        UserError, match=r'every training picture of cat has a copy .* remove'
    ):
        prepare(read(root), tmp_path / 'out')


def test_copies_with_all_objects_of_a_class_are_an_error(tmp_path):
    root = tmp_path / 'data'
    own_data.yolo(root)
    for i in range(1, 4):
        write_text(root / f'labels/train/{i}.txt', '0 0.5 0.5 0.2 0.2')
    shutil.copy(root / 'images/train/0.jpg', root / 'images/val/0.jpg')
    with pytest.raises(UserError, match='every training picture of dog has'):
        prepare(read(root), tmp_path / 'out')


# ---------------------------------------------------------------- label maps
def _maps_in_splits(root, values):
    """Label maps of three equal channels with some values in each split."""
    for split, greys in values.items():
        for i in range(3):
            name = f'{split}/{i}'
            own_data.write_picture(root / f'images/{name}.jpg', i)
            grey = np.zeros(own_data.SIZE[::-1], np.uint8)
            for row, value in enumerate(greys):
                grey[10 * row : 10 * row + 10] = value
            path = root / f'masks/{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.dstack([grey] * 3)).save(path)
    return root


def _warnings(collection):
    return [r for r in collection.reasons if r.startswith('Warning')]


def test_ignored_white_in_three_channels_is_pointed_out(tmp_path):
    greys = dict(train=(0, 20), val=(0, 20, 255))
    _maps_in_splits(tmp_path, greys)
    collection = read(tmp_path)
    assert collection.classes == ('0', '20')
    (warning,) = _warnings(collection)
    assert 'white (255, 255, 255) in the label maps is ignored' in warning
    # The remedy that it names.
    rows = ['black:0,0,0', 'grey:20,20,20', 'white:255,255,255']
    write_text(tmp_path / 'labelmap.txt', '\n'.join(rows))
    collection = read(tmp_path)
    assert collection.classes == ('black', 'grey', 'white')
    (warning,) = _warnings(collection)
    assert 'of val have values' in warning
    assert '(255, 255, 255)' in warning


def test_values_of_validation_alone_in_three_channels(tmp_path):
    _maps_in_splits(tmp_path, dict(train=(0,), val=(0, 20)))
    (warning,) = _warnings(read(tmp_path))
    assert 'of val have values that those of train do not have' in warning
    assert '(20, 20, 20)' in warning


def test_black_and_white_has_no_warning_of_white(tmp_path):
    _maps_in_splits(tmp_path, dict(train=(0, 255), val=(0, 255)))
    collection = read(tmp_path)
    assert collection.classes == ('background', 'object')
    assert not _warnings(collection)

import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mmtransxnet.own_data.collection import Collection, Object, Picture
from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.own_data.splits import split
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.own_data import write_picture


def collection_of(root, labels):
    """Pictures that show the given classes."""
    pictures = [
        Picture(
            write_picture(root / f'{i}.png', i, (8, 8)),
            8,
            8,
            objects=tuple(Object(name, (0, 0, 8, 8)) for name in shown),
        )
        for i, shown in enumerate(labels)
    ]
    classes = tuple(sorted({name for shown in labels for name in shown}))
    return Collection('made up', root, 'detection', classes, pictures)


def divided(root, labels, seed=0):
    collection = collection_of(root, labels)
    shown = {
        p.path: frozenset(o.label for o in p.objects)
        for p in collection.pictures
    }
    result = split(collection, shown, seed)
    return Counter(
        (p.split, o.label) for p in result.pictures for o in p.objects
    ), Counter(p.split for p in result.pictures)


def test_each_class_is_divided_alike(tmp_path):
    labels = [('a',)] * 40 + [('b',)] * 10 + [('a', 'c')] * 10 + [()] * 10
    objects, pictures = divided(tmp_path, labels)
    assert pictures == {'train': 56, 'val': 14}
    assert objects['val', 'a'] == 10
    assert objects['val', 'b'] == 2
    assert objects['val', 'c'] == 2


@pytest.mark.parametrize('seed', range(5))
def test_training_has_every_class(tmp_path, seed):
    labels = [('rare', 'a'), ('a',), ('a', 'b'), ('b',), ('a', 'b'), ('a',)]
    objects, pictures = divided(tmp_path, labels, seed)
    assert objects['train', 'rare'] == 1
    assert objects['train', 'a']
    assert objects['train', 'b']
    assert pictures['val'] in (1, 2)


def test_another_seed_divides_otherwise(tmp_path):
    root = own_data.voc(tmp_path / 'data', 20)
    chosen = {
        tuple(p.split for p in prepare(read(root), tmp_path / 'out', seed=s)
        .collection.pictures)
        for s in range(3)
    }  # fmt: skip
    assert len(chosen) > 1


@pytest.mark.parametrize('seed', range(4))
def test_copies_are_never_on_both_sides(tmp_path, seed):
    root = own_data.class_folders(tmp_path / 'data')
    for path in list(root.rglob('*.jpg')):
        shutil.copy(path, path.with_name(f'copy{path.name}'))
        # The same pixels in another format.
        with Image.open(path) as image:
            image.save(path.with_suffix('.png'))
    result = prepare(read(root), tmp_path / 'out', seed=seed)
    sides = {}
    for picture in result.collection.pictures:
        name = picture.path.stem.removeprefix('copy')
        sides.setdefault((picture.label, name), set()).add(picture.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert Counter(next(iter(s)) for s in sides.values()) == {
        'train': 8,
        'val': 2,
    }
    assert any(
        '30 pictures are copies' in r for r in result.collection.reasons
    )


def test_copies_in_given_splits_are_not_trained_on(tmp_path):
    splits = ('train', 'val', 'test')
    root = own_data.class_folders(tmp_path / 'data', 3, splits)
    shutil.copy(root / 'train/cat/0.jpg', root / 'val/cat/copy.jpg')
    shutil.copy(root / 'val/cat/1.jpg', root / 'test/cat/same.jpg')
    data = prepare(read(root), tmp_path / 'out').collection
    assert Counter(p.split for p in data.pictures) == {
        'train': 5,
        'val': 7,
        'test': 7,
    }
    reason = 'training picture with a copy in validation or test'
    assert data.dropped == {reason: 1}
    assert any(f'{reason}, for example' in text for text in data.reasons)
    (warning,) = [r for r in data.reasons if r.startswith('Warning')]
    assert '1.jpg' in warning
    assert 'same.jpg' in warning


def test_training_on_validation_is_an_error(tmp_path):
    root = own_data.class_folders(tmp_path / 'data', 3, ('train',))
    shutil.copytree(root / 'train', root / 'val')
    with pytest.raises(UserError, match='every training picture has a copy'):
        prepare(read(root), tmp_path / 'out')


def test_validation_is_drawn_if_only_a_test_split_is_given(tmp_path):
    root = own_data.class_folders(tmp_path / 'data', 5, ('train', 'test'))
    result = prepare(read(root), tmp_path / 'out')
    assert {name: part.pictures for name, part in result.splits.items()} == {
        'train': 8,
        'val': 2,
        'test': 10,
    }


def _outside(root):
    own_data.class_folders(root, 2, ('val', 'test'))


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (lambda root: own_data.voc(root, 3), '3 usable training pictures'),
        (_outside, 'test and val pictures and none for training'),
    ],
)
def test_what_cannot_be_divided_is_an_error(tmp_path, make, part):
    make(tmp_path / 'data')
    with pytest.raises(UserError, match=part):
        prepare(read(tmp_path / 'data'), tmp_path / 'out')
    assert not Path(tmp_path / 'out').exists()


def test_copies_of_one_picture_are_an_error(tmp_path):
    collection = collection_of(tmp_path, [('a',)] * 4)
    for picture in collection.pictures[1:]:
        shutil.copy(collection.pictures[0].path, picture.path)
    shown = {p.path: frozenset('a') for p in collection.pictures}
    with pytest.raises(UserError, match='only copies of one picture'):
        split(collection, shown)


def test_two_pictures_are_enough_for_tiles(tmp_path):
    root = own_data.voc(tmp_path / 'data', 2)
    result = prepare(read(root), tmp_path / 'out', tile=40)
    assert {name: part.pictures for name, part in result.splits.items()} == {
        'train': 4,
        'val': 4,
    }
    own_data.voc(tmp_path / 'one', 1)
    with pytest.raises(UserError, match=r'1 usable .* at least 2 are'):
        prepare(read(tmp_path / 'one'), tmp_path / 'out1', tile=40)


@pytest.mark.parametrize('seed', range(3))
def test_pictures_of_different_sizes_are_divided_by_area(tmp_path, seed):
    root = own_data.voc(tmp_path / 'data', 3)
    for name, size in (('0', (300, 300)), ('1', (150, 150))):
        write_picture(root / f'{name}.jpg', int(name), size)
        xml = own_data.voc_xml(f'{name}.jpg', size=size)
        own_data.write_text(root / f'{name}.xml', xml)
    data = prepare(read(root), tmp_path / 'out', seed, tile=64).collection
    held_out = {p.path.name[0] for p in data.pictures if p.split == 'val'}
    assert held_out == {'1'}

"""Choices and their reasons."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.own_data.anchors import best_scale
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Picture,
)
from mmtransxnet.own_data.decisions import decide
from mmtransxnet.own_data.label_maps import pixel_shares
from mmtransxnet.own_data.recipes import ALGORITHMS, read
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.published import FILES, SCHEME
from tests.support.prepared_data import prepared

RETINANET = 'detection/retinanet_transxnet_t.py'


@pytest.mark.parametrize(
    ('task', 'masks', 'expected'),
    [
        (CLASSIFICATION, False, 'classifier'),
        (DETECTION, False, 'retinanet'),
        (DETECTION, True, 'maskrcnn'),
        (SEGMENTATION, False, 'sfpn'),
    ],
)
def test_algorithm_by_task(tmp_path, task, masks, expected):
    made = decide(prepared(tmp_path / 'data', task, masks=masks))
    assert made['algorithm'] == expected
    assert all(choice.reason for choice in made.choices)


@pytest.mark.parametrize(
    ('task', 'words'),
    [
        (CLASSIFICATION, 'points of top-1'),
        (DETECTION, 'points of AP50'),
        (SEGMENTATION, 'freezing two stages gained nothing'),
    ],
)
def test_why_no_stage_is_frozen(tmp_path, task, words):
    made = decide(prepared(tmp_path / 'data', task))
    assert words in made.find('weights').reason


def test_what_is_asked_for_is_taken(tmp_path):
    data = prepared(tmp_path / 'data', SEGMENTATION)
    made = decide(data, 'upernet', 'b', 3, from_scratch=True)
    assert made['algorithm'] == 'upernet'
    assert made['arch'] == 'b'
    assert made['batch'] == 3
    assert made['weights'] is None


@pytest.mark.parametrize(
    ('algorithm', 'words'),
    [('sfpn', 'is not for detection'), ('maskrcnn', 'boxes only')],
)
def test_an_algorithm_that_does_not_fit(tmp_path, algorithm, words):
    data = prepared(tmp_path / 'data', DETECTION)
    with pytest.raises(UserError, match=words):
        decide(data, algorithm)


def test_training_pictures_without_objects(tmp_path):
    data = prepared(tmp_path / 'data', DETECTION)
    data.collection.pictures[:8] = []
    with pytest.raises(UserError, match='no object in the pictures'):
        decide(data)


def test_a_classifier_is_not_larger_than_its_pictures(tmp_path):
    small = prepared(tmp_path / 'small', CLASSIFICATION, size=(80, 70))
    large = prepared(tmp_path / 'large', CLASSIFICATION, size=(300, 260))
    assert decide(small)['size'] == 96
    assert decide(large)['size'] == 224


def test_small_objects_enlarge_pictures(tmp_path):
    # The objects have a third of the short side.
    small = prepared(tmp_path / 'small', DETECTION, size=(96, 64))
    usual = prepared(tmp_path / 'usual', DETECTION, size=(320, 256))
    large = prepared(tmp_path / 'large', DETECTION, train=2, size=(1600, 1400))
    assert min(decide(small)['size']) > 64
    assert decide(usual)['size'] == (320, 256)
    assert decide(large)['size'] == (1333, 800)
    assert '--tile 512' in decide(large).find('tiles').reason


def test_anchors_follow_the_objects():
    model = read(RETINANET).model
    large = np.full((50, 2), 100.0)
    small = np.full((50, 2), 9.0)
    assert best_scale(large, model).scale == 4
    found = best_scale(small, model)
    assert found.scale == 1
    assert found.published_fit == 0
    assert found.fit == 1
    # Some need smaller anchors, and more of them the largest.
    mixed = np.concatenate([small[:5], np.full((45, 2), 800.0)])
    assert best_scale(mixed, model).scale == 4


@pytest.mark.parametrize('arch', 'tsb')
@pytest.mark.parametrize('name', ALGORITHMS)
def test_weights_are_published(tmp_path, name, arch):
    algorithm = ALGORITHMS[name]
    data = prepared(tmp_path / 'data', algorithm.task, masks=True)
    weights = decide(data, name, arch)['weights']
    assert weights.removeprefix(SCHEME) in FILES
    whole = weights == algorithm.weights(arch)
    assert whole == bool(algorithm.new_heads)


def test_more_pictures_train_longer_but_not_as_often(tmp_path):
    few = decide(prepared(tmp_path / 'few', DETECTION, train=10))
    many = decide(prepared(tmp_path / 'many', DETECTION, train=100))
    assert few['epochs'] >= many['epochs']
    steps = [made['epochs'] * count / made['batch']
             for made, count in ((few, 10), (many, 100))]  # fmt: skip
    assert steps[0] < steps[1]


def test_pictures_without_objects_are_not_counted(tmp_path):
    """mmdet filters them out of training."""
    data = prepared(tmp_path / 'data', DETECTION, train=40)
    assert 'left_out' not in decide(data)
    for number in range(30):
        picture = data.collection.pictures[number]
        data.collection.pictures[number] = replace(picture, objects=())
    made = decide(data)
    assert made['left_out'] == 30
    assert '30 of 40 training pictures have none' in (
        made.find('left_out').reason
    )
    assert '10 pictures are' in made.find('epochs').reason


def test_augmentation_of_few_pictures(tmp_path):
    """The recipe for a million pictures is not for thousands."""
    for task, few, many in (
        (CLASSIFICATION, 99_999, 100_000),
        (SEGMENTATION, 999, 1000),
    ):
        data = prepared(tmp_path / task, task)
        for count, expected in ((few, 'gentle'), (many, 'published')):
            data.splits['train'] = replace(
                data.splits['train'], pictures=count
            )
            assert decide(data)['augmentation'] == expected


def test_a_class_with_nearly_all_pixels_weighs_less(tmp_path):
    data = prepared(tmp_path / 'data', SEGMENTATION)
    number, weight = decide(data)['class_weight']
    assert number == 0
    assert 0.1 <= weight < 0.25
    # As many pixels of each class.
    even = np.arange(96 * 64, dtype=np.uint8).reshape(64, 96) % 3
    for picture in data.collection.pictures:
        Image.fromarray(even).save(picture.label_map)
    assert 'class_weight' not in decide(data)


def test_pixels_are_counted_by_class(tmp_path):
    labels = np.array([[0, 1, 1, 255], [2, 1, 1, 9]], np.uint8)
    path = tmp_path / 'labels.png'
    Image.fromarray(labels).save(path)
    picture = Picture(tmp_path / '0.png', 4, 2, 'train', label_map=path)
    shares = pixel_shares([picture] * 2, 3)
    assert shares.tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6])
    assert pixel_shares([], 3).tolist() == [0, 0, 0]


def test_rate_follows_the_batch(tmp_path):
    data = prepared(tmp_path / 'data', DETECTION)
    published = read(RETINANET)
    made = decide(data, batch_size=published.auto_scale_lr.base_batch_size)
    assert made['rate'] == published.optim_wrapper.optimizer.lr
    quarter = decide(data, batch_size=4)
    assert quarter['rate'] == pytest.approx(made['rate'] / 2, rel=0.05)
    scratch = decide(data, batch_size=4, from_scratch=True)
    assert scratch['rate'] > quarter['rate']
    assert scratch['epochs'] > quarter['epochs']

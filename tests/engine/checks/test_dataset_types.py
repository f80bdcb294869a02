"""What is known of a data set, and what is left alone."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, METRICS, DefaultScope

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import UserError, check_data, inspect_layout
from mmtransxnet.engine.checks.dataset_types import (
    Loading,
    leaf_datasets,
    loading_of,
)
from mmtransxnet.engine.checks.pictures import (
    check_picture,
    check_sample,
    sample_of,
)
from tests.support import foreign_data

pytestmark = pytest.mark.distribution

LOAD = dict(type='LoadImageFromFile')


def built(scope, kind, *steps, **options):
    """A data set of a library that has listed nothing yet."""
    with DefaultScope.overwrite_default_scope(scope):
        return DATASETS.build(
            dict(type=kind, lazy_init=True, pipeline=steps, **options)
        )


def test_a_name_is_not_a_wrapped_data_set():
    inner = dict(type='A'), dict(type='B')
    wrapped = dict(type='Repeat', dataset=dict(type='C', datasets=inner))
    assert list(leaf_datasets(wrapped)) == [*inner]
    for named in (
        dict(type='A', dataset='name'),
        dict(type='A', datasets=['one', 'two']),
        dict(type='A', datasets=[]),
        dict(type='A', dataset=None),
    ):
        assert list(leaf_datasets(named)) == [named]


# How pictures are loaded, whether they are local files, whether as usual.
LOADERS = {
    'usual': (dict(), True, True),
    'a named local backend': (
        dict(backend_args=dict(backend='local')), True, True,
    ),
    'grey': (dict(color_type='grayscale'), True, True),
    'not turned': (dict(color_type='color_ignore_orientation'), True, False),
    'many bands': (dict(imdecode_backend='tifffile'), True, False),
    'missing ones left out': (dict(ignore_empty=True), False, False),
    'a store': (
        dict(backend_args=dict(backend='petrel', path_mapping={'a': 'b'})),
        False, False,
    ),
    'a store by its prefix': (
        dict(backend_args=dict(secret='x')), False, False,
    ),
    'a store as of old': (
        dict(file_client_args=dict(backend='lmdb', db_path='x')), False, False,
    ),
    'arrays': (dict(type='mmdet.LoadImageFromNDArray'), False, False),
}  # fmt: skip


@pytest.mark.parametrize('name', LOADERS)
def test_how_pictures_are_loaded(name):
    options, files, decoded = LOADERS[name]
    dataset = built(
        'mmdet', 'CocoDataset', {**LOAD, **options}, ann_file='x.json'
    )
    found = loading_of(dataset)
    assert (found.files, found.decoded) == (files, decoded)
    assert found.sizes == decoded
    assert not found.label_maps


def test_what_comes_before_the_loader_may_change_the_path():
    number = dict(type='OwnNumbers', numbers={})
    dataset = built('mmseg', 'BaseSegDataset', number, LOAD)
    assert loading_of(dataset) == Loading()
    assert loading_of(built('mmseg', 'BaseSegDataset')) == Loading()


class Drawing(BaseDataset):
    def prepare_data(self, idx):
        return self.pipeline(dict(img_path='drawn'))


class Counting(BaseDataset):
    def __getitem__(self, idx):
        return super().__getitem__(idx // 2)


@pytest.mark.parametrize('kind', [Drawing, Counting])
def test_what_a_class_does_itself_is_not_known(kind):
    plain = BaseDataset(pipeline=[LOAD], lazy_init=True)
    assert loading_of(plain).decoded
    assert loading_of(kind(pipeline=[LOAD], lazy_init=True)) == Loading()


# What is between the loaders and the end, and whether labels are known.
BETWEEN = {
    'nothing': ([], True),
    'flipped': ([dict(type='RandomFlip', prob=0.5)], True),
    'renumbered by the user': (
        [dict(type='OwnNumbers', numbers={})], False,
    ),
    'perhaps by the user': (
        [
            dict(
                type='RandomApply',
                transforms=[dict(type='OwnNumbers', numbers={})],
            )
        ],
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', BETWEEN)
def test_whose_labels_are_known(name):
    steps, known = BETWEEN[name]
    labels = dict(type='LoadAnnotations')
    found = loading_of(built('mmseg', 'ADE20KDataset', LOAD, labels, *steps))
    assert found.label_maps == known
    assert found.classes == 150
    assert found.decoded


def test_label_maps_that_are_not_loaded_are_not_judged(tmp_path):
    """As those of a test split that nobody has."""
    foreign_data.picture(tmp_path / 'a.jpg')
    dataset = dict(
        type='ADE20KDataset', data_root=str(tmp_path), test_mode=True,
        pipeline=[LOAD], data_prefix=dict(img_path='', seg_map_path='none'),
    )  # fmt: skip
    config = Config(
        dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset))
    )
    check_data(config, ['test'])
    (one,) = inspect_layout(config, ['test'])
    assert one.images == 1
    loading = loading_of(built('mmseg', 'ADE20KDataset', LOAD))
    info = dict(
        img_path=str(tmp_path / 'a.jpg'), seg_map_path='none',
        reduce_zero_label=True,
    )  # fmt: skip
    check_sample(sample_of(info, loading))


def test_labels_that_may_occur():
    loading = Loading(True, True, label_maps=True, classes=2)
    plain = dict(img_path='a', seg_map_path='b')
    shifted = dict(plain, reduce_zero_label=True)
    mapped = dict(plain, label_map={0: 255, 1: 0, 4: 1})

    def labels(info, **changes):
        changed = Loading(**{**vars(loading), **changes})
        return sample_of(info, changed).labels

    assert labels(plain) == {0, 1, 255}
    assert labels(plain, ignored=frozenset({9, 255})) == {0, 1, 9, 255}
    assert labels(shifted) == {0, 1, 2, 255}
    assert labels(mapped) == {0, 1, 4, 255}
    assert labels(plain, classes=0) is None
    assert sample_of(dict(plain, img_path=['a', 'b']), loading) is None
    assert sample_of([plain], loading) is None


def coco_config(root, **changes):
    """Two pictures are listed, one of them without a box."""
    foreign_data.picture(root / 'a.jpg')
    foreign_data._coco(root / 'a.json', ['a.jpg', 'b.jpg'])
    document = json.loads((root / 'a.json').read_text())
    del document['annotations'][1]
    (root / 'a.json').write_text(json.dumps(document))
    dataset = dict(
        type='CocoDataset', data_root=str(root), ann_file='a.json',
        data_prefix=dict(img=''), pipeline=[LOAD],
        metainfo=dict(classes=('bolt',)),
    )  # fmt: skip
    dataset.update(changes)
    return Config(
        dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))
    )


def test_a_picture_that_is_left_out_may_be_missing(tmp_path):
    with pytest.raises(UserError, match=r'1 of 2 .*: b\.jpg'):
        check_data(coco_config(tmp_path), ['train'])
    leaves_out = dict(filter_cfg=dict(filter_empty_gt=True))
    check_data(coco_config(tmp_path, **leaves_out), ['train'])
    # Only the first is used.
    check_data(coco_config(tmp_path, indices=1), ['train'])
    (tmp_path / 'a.jpg').unlink()
    config = coco_config(tmp_path, test_mode=True, **leaves_out)
    with pytest.raises(UserError, match='1 of 2'):
        check_data(config, ['train'])


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        (dict(pipeline=[]), 'loaded in another way'),
        (dict(type='Unheard'), 'in an unknown way'),
        (dict(data_prefix=dict(img='s3://bucket/')), 'not on a local disk'),
        (dict(ann_file=['a.json']), 'cannot be described (TypeError'),
        (dict(backend_args=dict(backend='http')), 'not on a local disk'),
    ],
)
def test_what_cannot_be_looked_at_is_told(tmp_path, changes, told):
    config = coco_config(tmp_path, **changes)
    check_data(config, ['train'])
    (one,) = inspect_layout(config, ['train'])
    assert told in one.unchecked
    assert not one.problems


@METRICS.register_module(name='ForeignMetric')
class ForeignMetric:
    """Finds its file in a way of its own."""


@pytest.mark.parametrize(
    ('metric', 'fails'),
    [
        (dict(type='CocoMetric', ann_file='none.json'), True),
        (dict(type='CocoMetric'), False),
        (dict(type='CocoMetric', ann_file='s3://none.json'), False),
        (
            dict(
                type='CocoMetric',
                ann_file='none.json',
                backend_args=dict(backend='petrel'),
            ),
            False,
        ),
        (dict(type='ForeignMetric', ann_file='none.json'), False),
    ],
)
def test_files_of_metrics(metric, fails):
    for evaluator in (metric, [metric, dict(type='DumpDetResults')]):
        config = Config(dict(default_scope='mmdet', val_evaluator=evaluator))
        if fails:
            with pytest.raises(UserError, match=r'none\.json does not exist'):
                check_data(config, ['val'])
        else:
            check_data(config, ['val'])


# What is written into a file of names and labels, and what is told of it.
LINES = {
    'tabs': ('a.jpg\t0', "line 1: 'a.jpg\\t0' is not a picture, a space"),
    'no label': ('a.jpg', 'line 1'),
    'a name for a label': ('a.jpg 0\na.jpg cat', "line 2: 'a.jpg cat'"),
    'missing': ('a.jpg 0\nb.jpg 1', '1 of 2 annotated pictures are not in'),
    'good': ('a.jpg 0\na.jpg 1', None),
}


@pytest.mark.parametrize('name', LINES)
def test_a_file_of_names_and_labels(tmp_path, name):
    lines, told = LINES[name]
    foreign_data.picture(tmp_path / 'a.jpg')
    (tmp_path / 'train.txt').write_text(lines + '\n')
    dataset = dict(
        type='CustomDataset', data_root=str(tmp_path), ann_file='train.txt',
        pipeline=[LOAD],
    )  # fmt: skip
    config = Config(
        dict(
            default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)
        )
    )
    (one,) = inspect_layout(config, ['train'])
    assert [told in problem for problem in one.problems] == [True] * bool(told)
    if name == 'missing':
        assert one.problems == one.samples
        assert one.images == 1


def test_jpeg_2000_is_a_picture(tmp_path):
    path = tmp_path / 'a.jp2'
    cv2.imwrite(str(path), np.zeros((64, 96, 3), 'uint8'))
    assert check_picture(str(path), decode=True) == (96, 64)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match='cannot be decoded'):
        check_picture(str(path))

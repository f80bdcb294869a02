"""Valid data sets that change one step of a library's are not refused."""

import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, XMLDataset
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets import CustomDataset
from mmseg.datasets import BaseSegDataset
from torch.utils.data import Dataset

from mmtransxnet.engine import UserError, check_data
from mmtransxnet.engine.checks import folders
from mmtransxnet.engine.checks.corrupt_samples import guarded_dataset
from mmtransxnet.engine.checks.dataset_types import leaf_datasets
from mmtransxnet.engine.checks.deep_check import DeepCheck
from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_picture,
)
from tests.support import foreign_data

LOAD = dict(type='LoadImageFromFile')
ZIP = dict(LOAD, backend_args=dict(backend='petrel'))


class OtherNames(CocoDataset):
    def parse_data_info(self, raw):
        raw['raw_img_info']['file_name'] += '.jpg'
        return super().parse_data_info(raw)


class PngOfXml(XMLDataset):
    def parse_data_info(self, info):
        info['img_path'] = info['img_path'].replace('.jpg', '.png')
        return super().parse_data_info(info)


class WithoutMissing(CocoDataset):
    def filter_data(self):
        return [one for one in self.data_list if 'gone' not in one['img_path']]


class OwnSearch(CustomDataset):
    def _find_samples(self):
        return [(f'{self.img_prefix}/a.jpg', 0)]


class LatePrefix(BaseSegDataset):
    def full_init(self):
        self.data_prefix['seg_map_path'] = self.data_prefix['img_path']
        super().full_init()


class Hub(Dataset):
    """Not of mmengine; what it is given is called as others' wrapped sets."""

    def __init__(self, dataset):
        self.metainfo = dict(name=dataset['path'])

    def __len__(self):
        return 1


class OwnPaths(BaseDataset):
    def __init__(self, data_root, ann_file, pipeline):
        super().__init__(
            ann_file=f'ann/{ann_file}.json',
            data_root=data_root,
            pipeline=pipeline,
        )


@pytest.fixture(autouse=True)
def registered():
    kinds = (
        OtherNames, PngOfXml, WithoutMissing, OwnSearch, LatePrefix, OwnPaths,
        Hub,
    )  # fmt: skip
    for kind in kinds:
        DATASETS.register_module(module=kind, force=True)
    yield
    for kind in kinds:
        del DATASETS.module_dict[kind.__name__]


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'img').mkdir()
    for name in ('a.jpg', 'b.jpg'):
        foreign_data.picture(tmp_path / 'img' / name)
    return tmp_path


def coco(root, *names, boxes=True):
    """COCO's annotations, with a box in each picture."""
    document = dict(
        images=[
            dict(id=i, file_name=name, width=64, height=64)
            for i, name in enumerate(names)
        ],
        annotations=[
            dict(
                id=i, image_id=i, category_id=1, bbox=[1, 1, 9, 9],
                area=81, iscrowd=0,
            )
            for i in range(len(names))
            if boxes or i == 0
        ],
        categories=[dict(id=1, name='thing')],
    )  # fmt: skip
    (root / 'ann.json').write_text(json.dumps(document))


def config_of(root, scope, kind, *steps, **options):
    dataset = dict(type=kind, pipeline=list(steps), **options)
    if 'data_root' not in dataset:
        dataset['data_root'] = str(root)
    return Config(
        dict(
            default_scope=scope,
            train_dataloader=dict(dataset=dataset),
            bad_data=dict(policy='error', limit=0),
        )
    )


@pytest.fixture
def accepted(monkeypatch):
    """Check a config that is valid; return what was noted."""

    def check(config):
        notes = []
        monkeypatch.setattr(
            'mmtransxnet.engine.checks.preflight.print_log',
            lambda note, *_, **__: notes.append(note),
        )
        check_data(config, ['train'])
        return notes

    return check


THINGS = dict(classes=('thing',))
DETECTION = dict(
    ann_file='ann.json', data_prefix=dict(img='img/'), metainfo=THINGS
)


@pytest.mark.parametrize('kind', ['OtherNames', 'WithoutMissing'])
def test_own_steps_of_coco(root, accepted, kind):
    coco(root, 'a', 'gone') if kind == 'OtherNames' else coco(
        root, 'a.jpg', 'gone.jpg'
    )
    (note,) = accepted(config_of(root, 'mmdet', kind, LOAD, **DETECTION))
    assert 'in an unknown way' in note
    with pytest.raises(UserError, match='annotated pictures are not in'):
        accepted(config_of(root, 'mmdet', 'CocoDataset', LOAD, **DETECTION))


def test_own_steps_of_others(root, accepted):
    (root / 'names.txt').write_text('a\n')
    (root / 'xml').mkdir()
    for scope, kind, options in (
        (
            'mmdet',
            'PngOfXml',
            dict(
                ann_file='names.txt', img_subdir='img', ann_subdir='xml',
                data_prefix=dict(sub_data_root=''), metainfo=THINGS,
            ),
        ),
        ('mmpretrain', 'OwnSearch', dict(data_prefix='img')),
        (
            'mmseg',
            'LatePrefix',
            dict(
                data_prefix=dict(img_path='img', seg_map_path='nolab'),
                metainfo=THINGS,
            ),
        ),
        ('mmengine', 'OwnPaths', dict(ann_file='train')),
    ):  # fmt: skip
        notes = accepted(config_of(root, scope, kind, LOAD, **options))
        assert len(notes) == 1, kind
        assert 'not checked' in notes[0], kind


def test_pictures_that_a_store_has_need_no_folder(root, accepted):
    coco(root, 'x.jpg')
    (root / 'names.txt').write_text('x.jpg 0\n')
    (root / 'stems.txt').write_text('x\n')
    for scope, kind, options in (
        ('mmdet', 'CocoDataset', dict(DETECTION, data_prefix=dict(img='no'))),
        (
            'mmpretrain',
            'CustomDataset',
            dict(ann_file='names.txt', data_prefix='no'),
        ),
        (
            'mmseg',
            'BaseSegDataset',
            dict(
                ann_file='stems.txt',
                data_prefix=dict(img_path='no', seg_map_path='no'),
                metainfo=THINGS,
            ),
        ),
    ):
        described = config_of(root, scope, kind, LOAD, **options)
        with pytest.raises(UserError, match='no does not exist'):
            accepted(described)
        with DefaultScope.overwrite_default_scope(scope):
            (note,) = accepted(config_of(root, scope, kind, ZIP, **options))
        assert 'loaded in another way' in note


def test_large_annotations_with_paths_of_their_own(
    root, accepted, monkeypatch
):
    monkeypatch.setattr(folders, '_LARGE', 10)
    monkeypatch.chdir(root)
    coco(root, str(root / 'img/a.jpg'))
    options = dict(DETECTION, data_prefix=dict(img=''), data_root='')
    options['ann_file'] = str(root / 'ann.json')
    (note,) = accepted(config_of('', 'mmdet', 'CocoDataset', LOAD, **options))
    assert 'which its folder does not have' in note
    (root / 'ann.json').write_text('{"images": [' + ' ' * 99)
    with pytest.raises(UserError, match='is incomplete'):
        accepted(config_of('', 'mmdet', 'CocoDataset', LOAD, **options))


def test_broken_pictures_that_are_not_used(root, accepted):
    coco(root, 'a.jpg', 'b.jpg', boxes=False)
    (root / 'img/b.jpg').write_bytes(b'\xff\xd8broken')
    filtered = dict(DETECTION, filter_cfg=dict(filter_empty_gt=True))
    assert not accepted(
        config_of(root, 'mmdet', 'CocoDataset', LOAD, **filtered)
    )
    accepted(
        config_of(root, 'mmdet', 'CocoDataset', LOAD, **DETECTION, indices=1)
    )
    with pytest.raises(UserError, match=r'b\.jpg'):
        accepted(config_of(root, 'mmdet', 'CocoDataset', LOAD, **DETECTION))


def test_settings_are_no_wrapped_data_set():
    hub = dict(type='Hub', dataset=dict(path='beans', split='train'))
    assert list(leaf_datasets(hub)) == [hub]
    deep = DeepCheck(Config(dict(train_dataloader=dict(dataset=hub))))
    assert not deep.problems
    guarded = guarded_dataset(dataset=hub, policy='error', limit=0)
    assert guarded.metainfo == dict(name='beans')


def test_what_is_odd_is_a_note(root, accepted):
    segmentation = dict(data_prefix=dict(img_path=None), metainfo=THINGS)
    (root / 'lists.json').write_text(
        json.dumps(dict(metainfo={}, data_list=[[1, 2]]))
    )
    for scope, kind, options in (
        ('mmseg', 'BaseSegDataset', segmentation),
        ('mmengine', 'BaseDataset', dict(ann_file='lists.json')),
    ):
        (note,) = accepted(config_of(root, scope, kind, LOAD, **options))
        assert 'not checked' in note
    assert not accepted(Config(dict(train_dataloader=[dict(dataset=1)])))


def test_what_its_own_library_cannot_list_is_named(root, accepted):
    (root / 'latin.txt').write_bytes('ä.jpg 0\n'.encode('latin-1'))
    (root / 'list.json').write_text('[1, 2]')
    for kind, name in (
        ('CustomDataset', 'latin.txt'),
        ('MultiLabelDataset', 'list.json'),
    ):
        config = config_of(root, 'mmpretrain', kind, LOAD, ann_file=name)
        with pytest.raises(UserError, match=f'{name} cannot be read by'):
            accepted(config)


def test_pictures_that_opencv_alone_reads(tmp_path):
    image = np.random.default_rng(0).random((5, 7, 3)).astype('float32')
    for suffix in ('tiff', 'pfm', 'hdr'):
        path = str(tmp_path / f'p.{suffix}')
        assert cv2.imwrite(path, image)
        assert check_picture(path, decode=True) == (7, 5)
    path = tmp_path / 'p.eps'
    path.write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    with pytest.raises(CorruptSampleError, match='cannot identify'):
        check_picture(str(path))


def test_no_annotation_file(root, accepted):
    config = config_of(
        root, 'mmseg', 'BaseSegDataset', LOAD, ann_file=None,
        data_prefix=dict(img_path='img'), metainfo=THINGS,
    )  # fmt: skip
    with pytest.raises(UserError, match='cannot be read by BaseSegDataset'):
        accepted(config)

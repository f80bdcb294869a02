import hashlib
import json

import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.own_data import BOXES

LOAD = [dict(type='LoadImageFromFile')]


def hashes(root):
    """What a folder has, to see that nothing changes in it."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def prepared(tmp_path, make, task=None, **options):
    root = make(tmp_path / 'data')
    before = hashes(root)
    result = prepare(read(root, task), tmp_path / 'out', **options)
    assert hashes(root) == before
    return result


def dataset_of(result, split, **fields):
    """The data set of a library, as a config builds it."""
    names = dict(
        classification='mmpretrain.CustomDataset',
        detection='mmdet.CocoDataset',
        segmentation='mmseg.BaseSegDataset',
    )
    name = names[result.collection.task]
    scope = name.partition('.')[0]
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.build(
            dict(
                type=name,
                metainfo=dict(classes=result.collection.classes),
                ann_file=str(result.splits[split].ann_file),
                **fields,
            )
        )


def polygons(box):
    return [own_data.corners(box)]


@pytest.mark.parametrize(
    'make',
    [own_data.coco, own_data.voc, own_data.csv_boxes, own_data.coco_splits],
)
def test_mmdet_loads_boxes(tmp_path, make):
    result = prepared(tmp_path, make)
    numbers = set()
    for split in ('train', 'val'):
        dataset = dataset_of(
            result,
            split,
            data_prefix=dict(img=str(result.picture_root)),
            pipeline=[*LOAD, dict(type='LoadAnnotations', with_bbox=True)],
        )
        assert len(dataset) == result.splits[split].pictures
        for sample in dataset:
            assert sample['img'].shape == (48, 64, 3)
            found = sample['gt_bboxes'].tensor.tolist()
            assert found == [list(box) for box in BOXES.values()]
            assert sample['gt_bboxes_labels'].tolist() == [0, 1]
            numbers.add(sample['img_path'])
    assert len(numbers) == len(result.collection.pictures)


def test_mmdet_loads_masks(tmp_path):
    result = prepared(tmp_path, lambda r: own_data.coco(r, mask=polygons))
    dataset = dataset_of(
        result,
        'train',
        data_prefix=dict(img=str(result.picture_root)),
        pipeline=[
            *LOAD,
            dict(type='LoadAnnotations', with_mask=True, poly2mask=False),
        ],
    )
    masks = dataset[0]['gt_masks']
    assert [m[0].tolist() for m in masks] == [
        own_data.corners(box) for box in BOXES.values()
    ]
    (first, *_) = json.loads(result.splits['train'].ann_file.read_text())[
        'annotations'
    ]
    assert first['area'] == 20 * 24


def test_mmpretrain_loads_class_folders(tmp_path):
    result = prepared(tmp_path, own_data.class_folders)
    assert result.splits['train'].objects == {'cat': 4, 'dog': 4}
    for split in ('train', 'val'):
        dataset = dataset_of(
            result,
            split,
            data_prefix=str(result.picture_root),
            pipeline=LOAD,
        )
        assert len(dataset) == result.splits[split].pictures
        for sample in dataset:
            label = result.collection.classes[sample['gt_label']]
            assert f'/{label}/' in sample['img_path']
            assert sample['img'].shape == (48, 64, 3)


def test_mmseg_loads_drawn_masks(tmp_path):
    result = prepared(
        tmp_path, lambda r: own_data.coco(r, mask=polygons), 'segmentation'
    )
    assert result.collection.classes == ('background', *BOXES)
    dataset = segmentation_dataset(result, 'train')
    expected = np.zeros((48, 64), np.uint8)
    for number, box in enumerate(BOXES.values(), 1):
        left, top, right, bottom = map(int, box)
        expected[top:bottom, left:right] = number
    assert len(dataset) == 5
    for sample in dataset:
        assert np.array_equal(sample['gt_seg_map'], expected)


def test_the_data_is_never_written_to(tmp_path):
    collection = read(own_data.voc(tmp_path))
    for folder in (tmp_path, tmp_path / 'out', tmp_path / 'x' / '..'):
        with pytest.raises(UserError, match='is within the data'):
            prepare(collection, folder)
    (tmp_path.parent / f'{tmp_path.name}_link').symlink_to(tmp_path)
    with pytest.raises(UserError, match='is within the data'):
        prepare(collection, tmp_path.parent / f'{tmp_path.name}_link' / 'out')


def test_writing_twice_gives_the_same(tmp_path):
    root = own_data.voc(tmp_path / 'data')
    for name in ('a', 'b'):
        prepare(read(root), tmp_path / name, seed=3)
    a, b = hashes(tmp_path / 'a'), hashes(tmp_path / 'b')
    assert list(a.values()) == list(b.values())
    assert len(a) == 2


@pytest.mark.parametrize('kind', ['index', 'palette', 'colour', 'odd'])
@pytest.mark.parametrize('suffixes', [('.jpg',), ('.jpg', '.tiff')])
def test_mmseg_loads_converted_label_maps(tmp_path, kind, suffixes):
    def make(root):
        own_data.label_maps(root, 5, kind)
        for suffix in suffixes[1:]:
            for i in range(2):
                path = root / 'images' / f'{i}.jpg'
                path.unlink()
                own_data.write_picture(path.with_suffix(suffix), i)
        return root

    result = prepared(tmp_path, make)
    assert result.img_suffix == (suffixes[0] if len(suffixes) == 1 else '')
    count = 0
    for split in ('train', 'val'):
        dataset = segmentation_dataset(result, split)
        for sample in dataset:
            count += 1
            assert sample['img'].shape == (48, 64, 3)
            assert np.array_equal(sample['gt_seg_map'], own_data.class_map())
    assert count == 5
    assert result.splits['val'].objects == dict.fromkeys(
        result.collection.classes, 1
    )


def segmentation_dataset(result, split):
    return dataset_of(
        result,
        split,
        img_suffix=result.img_suffix,
        data_prefix=dict(
            img_path=str(result.picture_root),
            seg_map_path=str(result.label_map_root),
        ),
        pipeline=[*LOAD, dict(type='LoadAnnotations')],
    )

"""The datasets of mmdet, mmseg and mmpretrain read the layouts."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask

import mmtransxnet  # noqa: F401
from mmtransxnet.datasets import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE


@pytest.fixture(autouse=True)
def scope(request):
    """Transforms are looked up in the scope of the library under test."""
    name = request.function.__name__.split('_')[1]
    with DefaultScope.overwrite_default_scope(name):
        yield


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_boxes_and_masks(digits_set, split):
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        data_root=str(digits_set.root / 'coco'),
        ann_file=f'annotations/instances_{split}.json',
        data_prefix={'img': f'{split}/'},
        metainfo={'classes': CLASSES, 'palette': PALETTE},
        filter_cfg={'filter_empty_gt': True, 'min_size': 32},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        ],
    )
    truth = digits_set.coco[split]['annotations']
    assert len(dataset) == digits_set.options[f'{split}_images']
    for number in range(len(dataset)):
        sample = dataset[number]
        annotations = [a for a in truth if a['image_id'] == sample['img_id']]
        assert sample['img'].shape == (96, 96, 3)
        boxes = np.array([a['bbox'] for a in annotations], float)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(
            np.asarray(sample['gt_bboxes'].tensor), boxes
        )
        assert sample['gt_bboxes_labels'].tolist() == [
            a['category_id'] for a in annotations
        ]
        masks = [coco_mask.decode(a['segmentation']) for a in annotations]
        np.testing.assert_array_equal(sample['gt_masks'].masks, masks)
        assert not sample['gt_ignore_flags'].any()


@pytest.mark.parametrize('split', ['training', 'validation'])
def test_mmseg_reads_label_maps(digits_set, split):
    from mmseg.datasets import BaseSegDataset

    dataset = BaseSegDataset(
        data_root=str(digits_set.root / 'ade'),
        data_prefix={
            'img_path': f'images/{split}',
            'seg_map_path': f'annotations/{split}',
        },
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo={'classes': SEG_CLASSES, 'palette': SEG_PALETTE},
        reduce_zero_label=True,
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
        ],
    )
    key = split.removesuffix('ing').removesuffix('idation')
    truth = digits_set.coco[key]['annotations']
    assert len(dataset) == digits_set.options[f'{key}_images']
    for number, sample in enumerate(dataset, 1):
        expected = np.zeros((96, 96), int)
        for annotation in truth:
            if annotation['image_id'] == number:
                mask = coco_mask.decode(annotation['segmentation']) == 1
                expected[mask] = SEG_CLASSES.index(
                    CLASSES[annotation['category_id']]
                )
        np.testing.assert_array_equal(sample['gt_seg_map'], expected)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmpretrain_reads_folders(digits_set, split):
    from mmpretrain.datasets import CustomDataset, ImageNet

    records = {
        record['file_name']: record['label']
        for record in digits_set.singles[split]
    }
    root = str(digits_set.root / 'imagenet')
    pipeline = [{'type': 'LoadImageFromFile'}]
    for dataset in (
        ImageNet(
            data_root=root,
            split=split,
            metainfo={'classes': CLASSES},
            pipeline=pipeline,
        ),
        CustomDataset(data_root=root, data_prefix=split, pipeline=pipeline),
    ):
        found = {
            '/'.join(info['img_path'].split('/')[-2:]): info['gt_label']
            for info in map(dataset.get_data_info, range(len(dataset)))
        }
        assert found == records
        assert tuple(dataset.CLASSES) == CLASSES
        assert dataset[0]['img'].shape == (38, 38, 3)

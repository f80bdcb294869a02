"""Data sets that are not ours, as their owners have them, each tiny.

Every layout is a function: it writes files into a folder and returns a
:class:`Foreign`, with the ``dataset`` of a train loader as its users write
it. What users register themselves is at the end.
"""

import csv
import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, TRANSFORMS
from PIL import Image

from tests.support.models import MICRO
from tests.support.paths import ROOT

SIDE = 64


@dataclass
class Foreign:
    """A data set and what is to be found of it.

    Attributes:
        scope: Library that trains on it.
        dataset: Config of the train loader's data set.
        classes: Number of classes for the head.
        judged: Number of pictures that --deep judges.
        unchecked: Part of what is noted as not checked; '' if all is.
        vital: Files that are listed; if one is lost, it is to be told.
        model: Other values for the model.
    """

    scope: str
    dataset: dict
    classes: int
    judged: int = 0
    unchecked: str = ''
    vital: tuple[str, ...] = ()
    model: dict | None = None


LAYOUTS: dict[str, Callable[..., Foreign]] = {}


def layout(make):
    LAYOUTS[make.__name__] = make
    return make


def picture(path, side=SIDE):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(
        0, 255, (side, side, 3), 'uint8'
    )
    Image.fromarray(values).save(path)


def labels(path, *values, dtype='uint8', palette=None):
    """A label map of vertical stripes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.repeat(values, -(-SIDE // len(values)))[:SIDE]
    image = Image.fromarray(np.tile(stripes, (SIDE, 1)).astype(dtype))
    if palette:
        image.putpalette(palette)
    image.save(path)


def text(path, *lines):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


# ---------------------------------------------------------------- pipelines
def steps(*others, loader=None, pack):
    return [loader or dict(type='LoadImageFromFile'), *others, dict(type=pack)]


def seg_steps(annotations=None, **options):
    return steps(
        annotations or dict(type='LoadAnnotations'),
        dict(type='RandomFlip', prob=0.5),
        pack='PackSegInputs',
        **options,
    )


def det_steps(**options):
    return steps(
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(SIDE, SIDE)),
        pack='PackDetInputs',
        **options,
    )


def cls_steps(**options):
    return steps(
        dict(type='Resize', scale=(SIDE, SIDE)), pack='PackInputs', **options
    )


# ------------------------------------------------------------- segmentation
@layout
def cityscapes(root):
    """A folder for each city, class numbers of training with 255."""
    for city, number in (('aachen', 0), ('bonn', 1), ('bonn', 2)):
        name = f'{city}_{number:06}_000019'
        picture(root / f'leftImg8bit/train/{city}/{name}_leftImg8bit.png')
        maps = root / f'gtFine/train/{city}'
        labels(maps / f'{name}_gtFine_labelTrainIds.png', 0, 18, 255)
        labels(maps / f'{name}_gtFine_labelIds.png', 0, 33)
    dataset = dict(
        type='CityscapesDataset',
        data_root=str(root),
        data_prefix=dict(
            img_path='leftImg8bit/train', seg_map_path='gtFine/train'
        ),
        pipeline=seg_steps(),
    )
    vital = 'gtFine/train/bonn/bonn_000001_000019_gtFine_labelTrainIds.png'
    return Foreign('mmseg', dataset, 19, 3, vital=(vital,))


@layout
def voc_segmentation(root):
    """A file of names out of a folder, label maps with a palette."""
    voc = root / 'VOC2012'
    for number in range(4):
        picture(voc / f'JPEGImages/2007_{number:06}.jpg')
    for number in range(2):
        labels(
            voc / f'SegmentationClass/2007_{number:06}.png',
            *(0, 20, 255), palette=list(range(256)) * 3,
        )  # fmt: skip
    text(
        voc / 'ImageSets/Segmentation/train.txt', '2007_000000', '2007_000001'
    )
    dataset = dict(
        type='PascalVOCDataset',
        data_root=str(voc),
        data_prefix=dict(
            img_path='JPEGImages', seg_map_path='SegmentationClass'
        ),
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=seg_steps(),
    )
    vital = (
        'VOC2012/JPEGImages/2007_000001.jpg',
        'VOC2012/SegmentationClass/2007_000001.png',
        'VOC2012/ImageSets/Segmentation/train.txt',
    )
    return Foreign('mmseg', dataset, 21, 2, vital=vital)


@layout
def label_numbers_of_the_owner(root):
    """Numbers of Cityscapes' own, which a transform of the user maps."""
    for name in 'ab':
        picture(root / f'images/{name}.png')
        labels(root / f'labels/{name}.png', 7, 8, 33)
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        img_suffix='.png',
        metainfo=dict(classes=('road', 'pavement')),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='OwnNumbers', numbers={7: 0, 8: 1}),
            dict(type='PackSegInputs'),
        ],
    )
    return Foreign('mmseg', dataset, 2, 2, 'label maps, which are loaded in')


@layout
def colours_as_labels(root):
    """Label maps are pictures of colours."""
    for name in 'ab':
        picture(root / f'images/{name}.jpg')
        picture(root / f'labels/{name}.png')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        metainfo=dict(classes=('dark', 'light')),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=seg_steps(dict(type='LoadColours')),
    )
    return Foreign('mmseg', dataset, 2, 2, 'label maps, which are loaded in')


@layout
def ignored_label_of_the_owner(root):
    """Absolute folders without a root, 99 for what is not learned."""
    for name in ('a/1', 'b/1'):
        picture(root / f'images/{name}.jpeg')
        labels(root / f'masks/{name}_mask.png', 0, 1, 99)
    dataset = dict(
        type='BaseSegDataset',
        img_suffix='.jpeg',
        seg_map_suffix='_mask.png',
        metainfo=dict(classes=('dark', 'light')),
        data_root='',
        data_prefix=dict(
            img_path=str(root / 'images'), seg_map_path=str(root / 'masks')
        ),
        ignore_index=99,
        pipeline=seg_steps(),
    )
    model = dict(decode_head=dict(ignore_index=99))
    vital = ('masks/b/1_mask.png',)
    return Foreign('mmseg', dataset, 2, 2, vital=vital, model=model)


@layout
def classes_not_named(root):
    """Nothing says how many classes there are; labels of 16 bits."""
    for name in 'ab':
        picture(root / f'{name}.jpg')
        labels(root / f'{name}.png', 0, 5, 6, dtype='uint16')
    dataset = dict(
        type='BaseSegDataset', data_root=str(root), pipeline=seg_steps()
    )
    return Foreign('mmseg', dataset, 7, 2, vital=('b.png',))


# ---------------------------------------------------------------- detection
def _xml(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox>'
        '<xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>48</ymax>'
        '</bndbox></object>'
        for name in names
    )
    size = '<size><width>0</width><height>0</height><depth>3</depth></size>'
    path.write_text(f'<annotation>{size}{boxes}</annotation>')


@layout
def voc_detection(root):
    """Two years in one, repeated; a tool wrote no sizes into the XML."""
    several = []
    for year in ('VOC2007', 'VOC2012'):
        for name in ('000001', '000002'):
            picture(root / year / f'JPEGImages/{name}.jpg')
            _xml(root / year / f'Annotations/{name}.xml', 'cat', 'dog')
        picture(root / year / 'JPEGImages/000003.jpg')
        text(root / year / 'ImageSets/Main/trainval.txt', '000001', '000002')
        several.append(
            dict(
                type='VOCDataset',
                data_root=str(root),
                ann_file=f'{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'{year}/'),
                filter_cfg=dict(filter_empty_gt=True, bbox_min_size=8),
                pipeline=det_steps(),
            )
        )
    dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='ConcatDataset', ignore_keys=['dataset_type'],
            datasets=several,
        ),
    )  # fmt: skip
    vital = (
        'VOC2012/Annotations/000002.xml',
        'VOC2012/JPEGImages/000002.jpg',
        'VOC2007/ImageSets/Main/trainval.txt',
    )
    return Foreign('mmdet', dataset, 20, 4, vital=vital)


def _coco(path, names, **changes):
    """COCO's annotations, a box a picture."""
    images = [
        dict(id=number, file_name=name, width=SIDE, height=SIDE)
        for number, name in enumerate(names)
    ]
    box = dict(bbox=[8, 8, 32, 40], area=1280, category_id=7, iscrowd=0)
    document = dict(
        images=images,
        annotations=[
            {**box, 'id': number + 1, 'image_id': number, **changes}
            for number in range(len(names))
        ],
        categories=[dict(id=7, name='bolt')],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@layout
def coco_nested(root):
    """Pictures in folders beside annotations, one class, a mosaic."""
    names = ['line1/day2/1.jpg', 'line1/day2/2.PNG', 'line2/1.jpg']
    for name in names:
        picture(root / name)
    _coco(root / 'train.json', names)
    dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(
            type='ClassBalancedDataset',
            oversample_thr=0.5,
            dataset=dict(
                type='CocoDataset',
                data_root=str(root),
                ann_file='train.json',
                metainfo=dict(classes=('bolt',)),
                data_prefix=dict(img=''),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True),
                ],
            ),
        ),
        pipeline=[
            dict(type='Mosaic', img_scale=(SIDE, SIDE)),
            dict(type='Resize', scale=(SIDE, SIDE)),
            dict(type='PackDetInputs', meta_keys=('img_shape',)),
        ],
    )
    vital = ('line1/day2/2.PNG', 'train.json')
    return Foreign('mmdet', dataset, 1, 3, vital=vital)


@layout
def coco_behind_a_backend(root):
    """Paths that another backend maps to where the files are."""
    for name in ('1.jpg', '2.jpg'):
        picture(root / 'bucket/train' / name)
    _coco(root / 'bucket/train.json', ['1.jpg', '2.jpg'])
    backend = dict(
        backend='foreign.Mapped', path_mapping={'data/': f'{root}/bucket/'}
    )
    dataset = dict(
        type='CocoDataset',
        data_root='data/',
        ann_file='train.json',
        metainfo=dict(classes=('bolt',)),
        data_prefix=dict(img='train/'),
        backend_args=backend,
        pipeline=det_steps(
            loader=dict(type='LoadImageFromFile', backend_args=backend)
        ),
    )
    return Foreign('mmdet', dataset, 1, 0, 'not on a local disk')


@layout
def coco_of_a_subclass(root):
    """The user's class reads more, less, and at once."""
    for name in ('1.jpg', '2.jpg'):
        picture(root / 'images' / name)
    _coco(root / 'a.json', ['1.jpg', '2.jpg'], area=None, weight=2)
    dataset = dict(
        type='ForeignWeightedCoco',
        data_root=str(root),
        ann_file='a.json',
        metainfo=dict(classes=('bolt',)),
        data_prefix=dict(img='images/'),
        serialize_data=False,
        pipeline=det_steps(),
    )
    return Foreign('mmdet', dataset, 1, 2, 'in an unknown way')


@layout
def crowdhuman(root):
    """A line of JSON for each picture, named by its ID."""
    box = dict(fbox=[8, 8, 20, 40], hbox=[8, 8, 9, 9], vbox=[8, 8, 9, 9])
    lines = []
    for name in ('273271,1', '273271,2'):
        picture(root / f'Images/{name}.jpg')
        lines.append(
            json.dumps(dict(ID=name, gtboxes=[dict(tag='person', **box)]))
        )
    text(root / 'annotation_train.odgt', *lines)
    dataset = dict(
        type='CrowdHumanDataset',
        data_root=str(root),
        ann_file='annotation_train.odgt',
        data_prefix=dict(img='Images/'),
        pipeline=det_steps(),
    )
    return Foreign('mmdet', dataset, 1, 2, 'in an unknown way')


@layout
def boxes_in_a_table(root):
    """The user's own class with its own arguments."""
    rows = []
    for name in ('1.jpg', '2.jpg'):
        picture(root / 'p' / name)
        rows.append((name, '8', '8', '40', '48'))
    with (root / 'boxes.csv').open('w', newline='') as file:
        csv.writer(file).writerows(rows)
    dataset = dict(
        type='ForeignTable',
        source='line 1',
        table=str(root / 'boxes.csv'),
        pictures=str(root / 'p'),
        pipeline=det_steps(),
    )
    return Foreign('mmdet', dataset, 1, 2, 'in an unknown way')


# ----------------------------------------------------------- classification
@layout
def names_and_labels(root):
    """A file of names and classes, one of which has a blank."""
    names = ['a1.png', 'b 2.png', 'c.JPG']
    for name in names:
        picture(root / 'data' / name)
    text(
        root / 'meta/train.txt',
        *(f'{name} {number}' for number, name in enumerate(names)),
    )
    dataset = dict(
        type='CustomDataset',
        data_root=str(root),
        ann_file='meta/train.txt',
        data_prefix='data',
        classes=['x', 'y', 'z'],
        pipeline=cls_steps(),
    )
    return Foreign(
        'mmpretrain', dataset, 3, 3, vital=('data/b 2.png', 'meta/train.txt')
    )


@layout
def imagenet_with_names(root):
    """Few of the classes are on the disk, a file says which is which."""
    for name in ('n01440764/1.JPEG', 'n01443537/1.JPEG'):
        picture(root / 'train' / name)
    text(
        root / 'meta/train.txt',
        'n01440764/1.JPEG 0', 'n01443537/1.JPEG 1',
    )  # fmt: skip
    dataset = dict(
        type='ImageNet',
        data_root=str(root),
        split='train',
        pipeline=cls_steps(),
    )
    vital = ('train/n01443537/1.JPEG',)
    return Foreign('mmpretrain', dataset, 1000, 2, vital=vital)


@layout
def folders_in_class_folders(root):
    """A class has folders of its own, another has no picture yet."""
    for name in ('cat/day/1.jpg', 'cat/night/1.jpg', 'dog/1.jpg'):
        picture(root / name)
    (root / 'owl').mkdir()
    dataset = dict(
        type='CustomDataset', data_prefix=str(root), pipeline=cls_steps()
    )
    return Foreign('mmpretrain', dataset, 3, 3)


@layout
def several_labels(root):
    """mmengine's own format."""
    for name in ('1.png', '2.png'):
        picture(root / 'pictures' / name)
    records = [
        dict(img_path='1.png', gt_label=[0, 2]),
        dict(img_path='2.png', gt_label=[1]),
    ]
    metainfo = dict(classes=['x', 'y', 'z'])
    text(
        root / 'train.json',
        json.dumps(dict(metainfo=metainfo, data_list=records)),
    )
    dataset = dict(
        type='MultiLabelDataset',
        data_root=str(root),
        ann_file='train.json',
        data_prefix='pictures',
        pipeline=cls_steps(),
    )
    head = dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=3,
        in_channels=64,
    )
    return Foreign(
        'mmpretrain', dataset, 3, 2, vital=('pictures/2.png', 'train.json'),
        model=dict(head=head),
    )  # fmt: skip


@layout
def cifar(root, monkeypatch):
    """No pictures at all, but arrays in a pickle."""
    from mmpretrain.datasets import CIFAR10

    rng = np.random.default_rng(0)
    content = pickle.dumps(
        dict(
            data=rng.integers(0, 255, (4, 3072), 'uint8'), labels=[0, 9, 1, 2]
        )
    )
    names = [f'data_batch_{number}' for number in range(1, 6)]
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    for name in (*names, 'test_batch'):
        (folder / name).write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, 'train_list', [[n, digest] for n in names])
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', digest]])
    dataset = dict(
        type='CIFAR10',
        data_root=str(root),
        split='train',
        pipeline=[
            dict(type='RandomCrop', crop_size=32, padding=4),
            dict(type='PackInputs'),
        ],
    )
    return Foreign('mmpretrain', dataset, 10, 0, 'in an unknown way')


@layout
def birds(root):
    """CUB: three tables beside the pictures."""
    names = ['001.Albatross/1.jpg', '002.Auk/1.jpg']
    for name in names:
        picture(root / 'images' / name)
    for table, values in (
        ('images', names), ('image_class_labels', '12'),
        ('train_test_split', '11'),
    ):  # fmt: skip
        text(
            root / f'{table}.txt',
            *(f'{number} {v}' for number, v in enumerate(values, 1)),
        )
    dataset = dict(
        type='CUB', data_root=str(root), split='train', pipeline=cls_steps()
    )
    return Foreign('mmpretrain', dataset, 200, 2, 'in an unknown way')


@layout
def tensors(root):
    """Not a data set of mmengine's: torch's, with nothing on a disk."""
    dataset = dict(type='ForeignTensors', count=4, prefix=None)
    return Foreign('mmpretrain', dataset, 2, 0, 'in an unknown way')


# ------------------------------------------------- what users register
@TRANSFORMS.register_module(name='OwnNumbers')
class OwnNumbers(BaseTransform):
    """Gives labels other numbers; 255 to those without."""

    def __init__(self, numbers):
        self.numbers = {int(a): b for a, b in numbers.items()}

    def transform(self, results):
        before = results['gt_seg_map']
        after = np.full_like(before, 255)
        for old, new in self.numbers.items():
            after[before == old] = new
        return {**results, 'gt_seg_map': after}


@TRANSFORMS.register_module(name='LoadColours')
class LoadColours(BaseTransform):
    """Reads a label map whose bright colours are class 1."""

    def transform(self, results):
        colours = cv2.imread(results['seg_map_path'])
        results['gt_seg_map'] = (colours.mean(2) > 127).astype('uint8')
        results['seg_fields'].append('gt_seg_map')
        return results


class Mapped(LocalBackend):
    """Stands for a store that is reached by mapped paths."""

    def __init__(self, path_mapping):
        self.path_mapping = path_mapping

    def get(self, filepath):
        return super().get(self._map(filepath))

    def get_local_path(self, filepath):
        return super().get_local_path(self._map(filepath))

    def _map(self, path):
        for prefix, target in self.path_mapping.items():
            path = str(path).replace(prefix, target)
        return path


register_backend('foreign.Mapped', Mapped)


def register_subclass():
    """The class of a user that has COCO's from mmdet."""
    from mmdet.datasets import CocoDataset

    @DATASETS.register_module(name='ForeignWeightedCoco', force=True)
    class WeightedCoco(CocoDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.heaviest = max(one['weights'][0] for one in self.data_list)

        def parse_data_info(self, raw_data_info):
            found = raw_data_info['raw_ann_info']
            for one in found:
                one['area'] = one['bbox'][2] * one['bbox'][3]
            info = super().parse_data_info(raw_data_info)
            return {**info, 'weights': [one['weight'] for one in found]}


@DATASETS.register_module(name='ForeignTable')
class Table(BaseDataset):
    """Boxes in a table."""

    METAINFO = dict(classes=('thing',))

    def __init__(self, source, table, pictures, **kwargs):
        self.source, self.table, self.pictures = source, table, pictures
        super().__init__(**kwargs)

    def load_data_list(self):
        with open(self.table, newline='') as file:
            rows = list(csv.reader(file))
        return [
            dict(
                img_path=f'{self.pictures}/{name}',
                img_id=number,
                # Of the drawing that it was cut out of.
                width=4000,
                height=3000,
                instances=[
                    dict(
                        bbox=[float(one) for one in box],
                        bbox_label=0,
                        ignore_flag=0,
                    )
                ],
            )
            for number, (name, *box) in enumerate(rows)
        ]


@DATASETS.register_module(name='ForeignTensors')
class Tensors(torch.utils.data.Dataset):
    """Random pictures."""

    def __init__(self, count, prefix):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        inputs = torch.full((3, SIDE, SIDE), index, dtype=torch.uint8)
        sample = DataSample().set_gt_label(index % 2)
        return dict(inputs=inputs, data_samples=sample)


LOSSES: list[float] = []


@HOOKS.register_module(name='ForeignWitness')
class Witness(Hook):
    """Sees the losses of a run."""

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        LOSSES.append(outputs['loss'].item())


# ------------------------------------------------------------------ configs
_TASKS = dict(
    mmpretrain=(
        ('models/transxnet_classifier', 'runtime/classification'),
        lambda classes: dict(
            head=dict(num_classes=classes, in_channels=64), train_cfg=None
        ),
    ),
    mmdet=(
        ('models/retinanet_transxnet', 'runtime/detection'),
        lambda classes: dict(
            neck=dict(in_channels=[32, 48, 64], out_channels=16),
            bbox_head=dict(
                num_classes=classes,
                in_channels=16,
                feat_channels=16,
                stacked_convs=1,
            ),
        ),
    ),
    mmseg=(
        ('models/sfpn_transxnet', 'runtime/segmentation'),
        lambda classes: dict(
            data_preprocessor=dict(size=(SIDE, SIDE)),
            neck=dict(in_channels=[16, 32, 48, 64], out_channels=16),
            decode_head=dict(
                num_classes=classes, in_channels=[16] * 4, channels=16
            ),
        ),
    ),
)


def write_config(path: Path, foreign: Foreign) -> Path:
    """Write the config of one step of a tiny model on such a data set."""
    bases, model_for = _TASKS[foreign.scope]
    backbone = dict(arch=dict(_delete_=True, **MICRO), init_cfg=None)
    model: dict[str, Any] = dict(
        backbone=backbone, **model_for(foreign.classes)
    )
    for part, changes in (foreign.model or {}).items():
        kept = {} if '_delete_' in changes else model[part]
        model[part] = {**kept, **changes}
    settings = dict(
        _base_=[f'{ROOT}/configs/_base_/{base}.py' for base in bases],
        model=model,
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=foreign.dataset,
        ),
        train_cfg=dict(by_epoch=False, max_iters=1),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)
        ),
        custom_hooks=[dict(type='ForeignWitness')],
        bad_data=dict(policy='error', limit=0),
    )
    if foreign.scope == 'mmpretrain':
        settings['data_preprocessor'] = dict(
            num_classes=foreign.classes, mean=[128] * 3, std=[64] * 3
        )
    path.write_text('\n'.join(f'{k} = {v!r}' for k, v in settings.items()))
    return path

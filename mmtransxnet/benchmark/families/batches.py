"""Random pictures with annotations for the models of the families.

The input format of a model is read from its config: the data preprocessor and
the training pipeline.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from mmtransxnet.benchmark.families.zoo import Unsupported, walk

BATCH = 2
SIZES = (160, 224, 320)  # pixels; larger ones where the first is too small


def batch(config: Config, library: str, size: int) -> dict:
    """Random images with annotations, as from a data loader.

    Raises:
        Unsupported: The model takes other inputs.
    """
    kind = preprocessor_type(config)
    for name, need in _OTHER_INPUTS.items():
        if name in kind:
            raise Unsupported(need)
    makers: dict[str, Callable] = dict(
        mmdet=_detection, mmseg=_segmentation, mmpretrain=_classification
    )
    return makers[library](config, size)


# Inputs by data preprocessor.
_OTHER_INPUTS = dict(
    TrackData='takes videos',
    ReIDData='takes several pictures of a person',
    LineDetData='takes lanes',
    MultiModalData='takes pictures with text',
)


def preprocessor_type(config: Config) -> str:
    """Name of the class of the data preprocessor."""
    return str((config.model.get('data_preprocessor') or {}).get('type'))


def _images(size: int) -> list[Tensor]:
    shape = (3, size, size)
    return [
        torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(BATCH)
    ]


def _metainfo(number: int, size: int) -> dict:
    return dict(
        img_id=number,
        img_path=f'{number}.jpg',
        img_shape=(size, size),
        ori_shape=(size, size),
        pad_shape=(size, size),
        batch_input_shape=(size, size),
        scale_factor=(1.0, 1.0),
        border=np.array([0, size, 0, size], dtype=np.float32),
        flip=False,
        flip_direction=None,
        homography_matrix=np.eye(3, dtype=np.float32),
        text='a . b .',
        custom_entities=True,
    )


def _classes(config: Config, default: int) -> int:
    """The smallest number of classes of any part of the model."""
    keys = ('num_classes', 'num_things_classes')
    counts = [
        node[k] for node in walk(config.model) for k in keys if k in node
    ]
    return min([n for n in counts if isinstance(n, int)], default=default)


def _detection(config: Config, size: int) -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.95, 0.9]]) * size
    labels = torch.tensor([0, min(1, _classes(config, 2) - 1)])
    masks = np.zeros((2, size, size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(
        masks, boxes.int().tolist(), strict=True
    ):
        mask[y1:y2, x1:x2] = 1
    loaded = list(walk(config.get('train_dataloader', {})))
    with_masks = any(
        node.get('with_mask') or 'Panoptic' in str(node.get('type'))
        for node in loaded
    )
    proposed = any(node.get('type') == 'LoadProposals' for node in loaded)
    samples = []
    for number in range(BATCH):
        sample = DetDataSample(metainfo=_metainfo(number, size))
        sample.gt_instances = InstanceData(
            bboxes=boxes.clone(), labels=labels.clone()
        )
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(masks, size, size)
        sample.ignored_instances = InstanceData(
            bboxes=boxes[:0], labels=labels[:0]
        )
        if proposed:
            sample.proposals = InstanceData(bboxes=boxes + 4)
        stuff = torch.from_numpy(masks.max(0, keepdims=True)).long()
        sample.gt_sem_seg = PixelData(sem_seg=stuff)
        samples.append(sample)
    data = dict(inputs=_images(size), data_samples=samples)
    if 'MultiBranch' not in preprocessor_type(config):
        return data
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    return {key: dict.fromkeys(branches, data[key]) for key in data}


def _segmentation(config: Config, size: int) -> dict:
    from mmseg.structures import SegDataSample

    samples = []
    for number in range(BATCH):
        sample = SegDataSample(metainfo=_metainfo(number, size))
        labels = torch.randint(0, _classes(config, 2), (1, size, size))
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=labels % 2)
        sample.gt_depth_map = PixelData(data=torch.rand(1, size, size) + 1)
        samples.append(sample)
    return dict(inputs=_images(size), data_samples=samples)


def _classification(config: Config, size: int) -> dict:
    from mmpretrain.structures import DataSample

    if 'head' in config.model and config.model.head is None:
        raise Unsupported('has no head')
    preprocessor = config.model.get('data_preprocessor') or {}
    multi = 'MultiLabel' in str(config.model.get('head'))
    samples = []
    for number in range(BATCH):
        sample = DataSample(metainfo=_metainfo(number, size))
        sample.set_gt_label([number] if multi else number)
        mask = _mask(config)
        if mask is not None:
            sample.set_mask(torch.from_numpy(np.asarray(mask)))
        samples.append(sample)
    sizes = _view_sizes(config, size)
    several = len(sizes) > 1
    if not several and not re.search('SelfSup', preprocessor_type(config)):
        channels = len(preprocessor.get('mean') or 'RGB')
        images = [image[:channels] for image in _images(size)]
        return dict(inputs=images, data_samples=samples)
    # These are already collated.
    views = [torch.stack(_images(n)) for n in sizes]
    inputs = views if several else views[0]
    return dict(inputs=inputs, data_samples=samples)


def _view_sizes(config: Config, size: int) -> list[int]:
    """Size in pixels of each view of an image."""
    for node in walk(config.get('train_dataloader', {})):
        if 'num_views' in node:
            views = node['num_views']
            return [size] * (views if isinstance(views, int) else sum(views))
        if 'second_size' in node:
            return [size, node['second_size']]
    return [size]


def _mask(config: Config) -> np.ndarray | None:
    """The mask of a masked self-supervised model."""
    for node in walk(config.get('train_dataloader', {})):
        if str(node.get('type')).endswith('MaskGenerator'):
            return TRANSFORMS.build(node)({})['mask']
    return None


def sizes_of(config: Config) -> list[int]:
    """Sizes of pictures to try, in pixels, in this order.

    A mask fixes the size. Other models are tried with small pictures first,
    then with the size in their config, if affordable.
    """
    own = [n for n in own_sizes(config) if n <= SIZES[-1]][:1]
    if _mask(config) is not None:
        return own or [SIZES[-1]]
    return [SIZES[0], *(own or SIZES[1:])]


def own_sizes(config: Config) -> Iterator[int]:
    """Sizes of the square pictures in a config's training."""
    for node in walk(config.get('train_dataloader', {})):
        for key in ('size', 'scale', 'crop_size'):
            sides = node.get(key)
            sides = sides if isinstance(sides, list | tuple) else [sides]
            if len(set(sides)) == 1 and isinstance(sides[0], int):
                yield sides[0]

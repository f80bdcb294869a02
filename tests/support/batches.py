"""A tiny batch for a model of each task."""

import numpy as np
import torch

HEIGHT, WIDTH = 64, 96


def images(height=HEIGHT, width=WIDTH):
    return [torch.randint(0, 256, (3, height, width)).byte() for _ in range(2)]


def metainfo():
    return dict(
        img_shape=(HEIGHT, WIDTH),
        ori_shape=(HEIGHT, WIDTH),
        scale_factor=(1.0, 1.0),
        batch_input_shape=(HEIGHT, WIDTH),
    )


def detection(config):
    """Two images with two instances each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    samples = []
    for _ in range(2):
        bboxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30, 10, 90, 60]])
        masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(
            masks, bboxes.int().tolist(), strict=True
        ):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(metainfo=metainfo())
        sample.gt_instances = InstanceData(
            bboxes=bboxes,
            labels=torch.tensor([1, 3]),
            masks=BitmapMasks(masks, HEIGHT, WIDTH),
        )
        samples.append(sample)
    return dict(inputs=images(), data_samples=samples)


def segmentation(config):
    """Two images, a label for each pixel."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    classes = config.model.decode_head.num_classes
    samples = []
    for _ in range(2):
        labels = torch.randint(0, classes, (1, HEIGHT, WIDTH))
        sample = SegDataSample(metainfo=metainfo())
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return dict(inputs=images(), data_samples=samples)


def classification(config):
    """Two images of different classes."""
    from mmpretrain.structures import DataSample

    labels = [DataSample().set_gt_label(label) for label in (3, 7)]
    return dict(inputs=images(64, 64), data_samples=labels)


def tiny_batch(config):
    """A batch for the task of a config."""
    makers = dict(
        mmdet=detection, mmseg=segmentation, mmpretrain=classification
    )
    return makers[config.default_scope](config)


def shrink(config) -> None:
    """Fewer proposals and regions, smaller tables: heads are slow on CPUs."""
    config.model.backbone.image_size = 64
    train = config.model.get('train_cfg') or {}
    if 'rpn_proposal' in train:
        train.rpn_proposal.update(nms_pre=64, max_per_img=16)
        stages = train.rcnn if isinstance(train.rcnn, list) else [train.rcnn]
        for stage in stages:
            stage.sampler.num = 8
        config.model.test_cfg.rpn.update(nms_pre=64, max_per_img=16)
    if config.default_scope == 'mmseg':
        config.model.data_preprocessor.size = (HEIGHT, WIDTH)

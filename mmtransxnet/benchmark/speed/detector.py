"""Mask R-CNN for tools/benchmark/speed.py: the published recipe's model."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmtransxnet.utils.paths import ROOT

CONFIG = 'configs/detection/maskrcnn_transxnet_t.py'

# Instances of an image: COCO has 7 on average.
_INSTANCES = 7


class Pyramid(nn.Module):
    """The outputs of a backbone that a neck takes: four, NCHW.

    timm's ResNet returns that of the stem, too, its Swin returns NHWC.

    Args:
        backbone: A backbone whose last four outputs have strides 4 to 32.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels_last = getattr(backbone, 'output_fmt', '') == 'NHWC'

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features ``(B, C, H, W)`` in ascending stride."""
        features = self.backbone(images)[-4:]
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return list(features)

    @torch.no_grad()
    def channels(self) -> list[int]:
        """Channels of the features, from those of a small image."""
        image = torch.zeros(1, 3, 64, 64)
        return [feature.size(1) for feature in self.eval()(image)]


class Detector(nn.Module):
    """Mask R-CNN with the interface of the benchmark: images in, tensors out.

    Args:
        backbone: Any backbone in its place; the neck is adapted.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """

    def __init__(self, backbone: Pyramid, height: int, width: int) -> None:
        super().__init__()
        config = Config.fromfile(ROOT / CONFIG)
        init_default_scope(config.default_scope)
        config.model.backbone.init_cfg = None
        config.model.neck.in_channels = backbone.channels()
        self.detector: Any = MODELS.build(config.model)
        self.detector.backbone = backbone
        self.sample = _sample(height, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Losses in training mode, else the classes' scores."""
        samples = [self.sample] * len(images)
        if self.training:
            losses = self.detector.loss(images, samples)
            return [self.detector.parse_losses(losses)[0]]
        predictions = self.detector.predict(images, samples, rescale=False)
        return [sample.pred_instances.scores for sample in predictions]


def _sample(height: int, width: int) -> Any:
    """An annotated image with boxes of all sizes."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([width, height, width, height])
    points = torch.rand(_INSTANCES, 2, 2, generator=generator).sort(1).values
    boxes = (points.flatten(1) * sides).round()
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 8)
    masks = torch.zeros(_INSTANCES, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(
        masks, boxes.int().tolist(), strict=True
    ):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            ori_shape=(height, width),
            batch_input_shape=(height, width),
            pad_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(_INSTANCES),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    return sample

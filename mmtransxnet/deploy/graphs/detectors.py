"""Deploy forms of mmdet's detectors."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.base import DeployForm, Normalise, Size
from mmtransxnet.deploy.graphs.dense import DenseDetections, RegionProposals
from mmtransxnet.deploy.graphs.roi import roi_heads
from mmtransxnet.utils.errors import UserError

_TWO_STAGE = ('FasterRCNN', 'MaskRCNN', 'CascadeRCNN')


class Detector(DeployForm):
    """Pictures to the maps of the neck, which all detectors have in common.

    Args:
        model: The trained model.
        batch: Number of images; None for any.
        size: Height and width; None for any.
    """

    task = 'detection'
    input_names = ('images', 'sizes')
    output_names: tuple[str, ...] = ('count', 'boxes', 'scores', 'labels')
    # More than a position even on a level of stride 128.
    example_size = (288, 160)

    def __init__(
        self, model: Any, batch: int | None, size: Size | None
    ) -> None:
        super().__init__(batch, size)
        self.normalise = Normalise(model.data_preprocessor)
        self.pad_value = float(model.data_preprocessor.pad_value)
        self.backbone = DeployBackbone(model.backbone, batch)
        self.neck = copy.deepcopy(model.neck)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Pictures of different sizes."""
        (images,) = super().example_inputs()
        sizes = torch.tensor(images.shape[1:3]).repeat(len(images), 1)
        return images, sizes - torch.arange(len(images))[:, None]

    def inputs_of(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """All inputs; every picture fills its array."""
        sizes = np.full((len(pictures), 2), pictures.shape[1:3], np.int64)
        return {**super().inputs_of(pictures), 'sizes': sizes}

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Dynamic dimensions of each input."""
        shapes = super().dynamic_shapes()
        batch = shapes[0].get(0)
        return (*shapes, {} if batch is None else {0: batch})

    def features(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Maps of the neck for pictures ``(B, H, W, 3)``."""
        x = self.normalise(images)
        inside = _inside(x.size(2), sizes[:, 0])[:, :, None]
        inside = inside & _inside(x.size(3), sizes[:, 1])[:, None]
        x = torch.where(inside[:, None], x, self.pad_value)
        return self.neck(self.backbone(x))


def _inside(length: int, limit: Tensor) -> Tensor:
    """Which positions along an axis are in the picture, ``(B, length)``."""
    return torch.arange(length, device=limit.device) < limit[:, None]


class SingleStageDetector(Detector):
    """RetinaNet: a dense head."""

    def __init__(
        self, model: Any, batch: int | None, size: Size | None
    ) -> None:
        super().__init__(model, batch, size)
        head = model.bbox_head
        if type(head).__name__ != 'RetinaHead':
            raise UserError(
                f'a {type(head).__name__} cannot be exported: expected a '
                'RetinaHead'
            )
        self.head = DenseDetections(head, 'bbox_head')

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images: Red, green, blue ``(B, H, W, 3)``, uint8.
            sizes: Height and width of each picture ``(B, 2)``, which is at
                the top left of its image; int64.

        Returns:
            Count ``(B,)``, boxes ``(B, K, 4)``, scores and labels ``(B, K)``.
        """
        return self.head(self.features(images, sizes), sizes)


class TwoStageDetector(Detector):
    """Mask R-CNN and its relatives: an RPN and an RoI head."""

    def __init__(
        self, model: Any, batch: int | None, size: Size | None
    ) -> None:
        super().__init__(model, batch, size)
        head = model.rpn_head
        if type(head).__name__ != 'RPNHead':
            raise UserError(
                f'a {type(head).__name__} cannot be exported: expected an '
                'RPNHead'
            )
        self.propose = RegionProposals(head, 'rpn_head')
        self.box_heads, self.mask_heads = roi_heads(model.roi_head)
        if self.mask_heads is not None:
            self.output_names = (*self.output_names, 'masks')

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images: Red, green, blue ``(B, H, W, 3)``, uint8.
            sizes: Height and width of each picture ``(B, 2)``, which is at
                the top left of its image; int64.

        Returns:
            Count ``(B,)``, boxes ``(B, K, 4)``, scores and labels ``(B, K)``;
            with masks also their probabilities ``(B, K, h, w)``.
        """
        features = self.features(images, sizes)
        proposals, valid = self.propose(features, sizes)
        outputs = self.box_heads(features, proposals, valid, sizes)
        if self.mask_heads is None:
            return outputs
        count, boxes, _, labels = outputs
        return (*outputs, self.mask_heads(features, count, boxes, labels))


def build(model: Any, batch: int | None, size: Size | None) -> nn.Module:
    """See :func:`mmtransxnet.deploy.graphs.deploy_form`."""
    two_stages = type(model).__name__ in _TWO_STAGE
    form = TwoStageDetector if two_stages else SingleStageDetector
    return form(model, batch, size)

"""Deploy form of mmseg's segmentor."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmseg.models.decode_heads.psp_head import PPM
from mmseg.models.utils import Upsample
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.base import (
    DeployForm,
    Normalise,
    Size,
    preprocessed,
)
from mmtransxnet.deploy.graphs.operators import resize_bilinear
from mmtransxnet.deploy.graphs.resampling import bin_averages
from mmtransxnet.utils.errors import UserError

# Labels up to this number of classes are uint8.
_MAX_UINT8_CLASSES = 256


class AdaptivePool(nn.Module):
    """Adaptive average pooling of maps of any size.

    Args:
        bins: Height and width of its output.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)``."""
        rows = bin_averages(x.size(2), self.bins, x)
        columns = bin_averages(x.size(3), self.bins, x)
        return rows @ (x @ columns.mT)


class IntegerUpsample(nn.Module):
    """mmseg's ``Upsample`` by an integer, without floats for sizes.

    Args:
        upsample: The module.
    """

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.factor = int(upsample.scale_factor)
        self.mode = upsample.mode
        self.align_corners = upsample.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Resize ``(B, C, H, W)``."""
        size = (x.size(2) * self.factor, x.size(3) * self.factor)
        return nn.functional.interpolate(
            x, size=size, mode=self.mode, align_corners=self.align_corners
        )


class Segmentor(DeployForm):
    """An ``EncoderDecoder``: pictures to label maps.

    Args:
        model: The trained model.
        batch: Number of images; None for any.
        size: Height and width; None for any.

    Raises:
        UserError: The model is tested with sliding windows, or has one output
            channel.
    """

    task = 'segmentation'
    input_names = ('images', 'target_size')
    output_names = ('labels', 'scores')

    def __init__(
        self, model: Any, batch: int | None, size: Size | None
    ) -> None:
        super().__init__(batch, size)
        _check(model)
        self.normalise = Normalise(model.data_preprocessor)
        self.backbone = DeployBackbone(model.backbone, batch)
        self.neck = copy.deepcopy(model.neck) if model.with_neck else None
        self.decode_head = copy.deepcopy(model.decode_head)
        _replace_resampling(self.decode_head)
        self.align_corners = bool(model.decode_head.align_corners)
        many = model.decode_head.out_channels > _MAX_UINT8_CLASSES
        self.label_type = torch.int64 if many else torch.uint8

    def forward(
        self, images: Tensor, target_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Label maps and the probabilities of the labels, ``(B, h, w)``.

        Args:
            images: Red, green, blue ``(B, H, W, 3)``, uint8.
            target_size: Height and width ``(2,)`` of the result, int64.
        """
        x = self.normalise(images)
        features = self.backbone(x)
        if self.neck is not None:
            features = self.neck(features)
        logits = self.decode_head(features)
        # As mmseg: first to the size of the input, then to the target.
        logits = nn.functional.interpolate(
            logits,
            size=x.shape[2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
        logits = resize_bilinear(logits, target_size, self.align_corners)
        labels = logits.argmax(dim=1).to(self.label_type)
        return labels, logits.softmax(dim=1).amax(dim=1)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs to trace the graph with."""
        return *super().example_inputs(), torch.tensor([80, 112])

    def inputs_of(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """All inputs; the result has the size of the pictures."""
        size = np.array(pictures.shape[1:3], np.int64)
        return {**super().inputs_of(pictures), 'target_size': size}

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Dynamic dimensions of each input."""
        return *super().dynamic_shapes(), None

    def reference(self, model: Any) -> Callable[..., tuple[Tensor, ...]]:
        """The label maps and logits of the model's own ``predict``."""

        def predict(images: Tensor, target_size: Tensor) -> Any:
            x = preprocessed(model, images)
            size = tuple(x.shape[2:])
            meta = dict(
                ori_shape=tuple(target_size.tolist()),
                img_shape=size,
                pad_shape=size,
            )
            samples = [SegDataSample(metainfo=meta) for _ in images]
            samples = model.predict(x, samples)
            logits = torch.stack([s.seg_logits.data for s in samples])
            labels = torch.cat([s.pred_sem_seg.data for s in samples])
            scores = logits.softmax(dim=1).amax(dim=1)
            return labels.to(self.label_type), scores

        return predict


def _check(model: Any) -> None:
    """Raise an error if the model's way to predict has no deploy form."""
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        raise UserError(
            f"test_cfg.mode='{mode}' cannot be exported; evaluate with "
            '--cfg-options model.test_cfg.mode=whole, and export that if its '
            'result is good enough'
        )
    if model.decode_head.out_channels == 1:
        raise UserError(
            'a decode head with one output channel (out_channels=1) cannot be '
            'exported; train with out_channels=2'
        )


def _replace_resampling(head: nn.Module) -> None:
    """Replace what has no form of its own in ONNX, or none of any size."""
    for module in head.modules():
        if isinstance(module, PPM):
            for pool in module:
                pool[0] = AdaptivePool(pool[0].output_size)
        for name, child in list(module.named_children()):
            if type(child) is Upsample and child.scale_factor is not None:
                module.add_module(name, IntegerUpsample(child))


def build(model: Any, batch: int | None, size: Size | None) -> Segmentor:
    """See :func:`mmtransxnet.deploy.graphs.deploy_form`."""
    return Segmentor(model, batch, size)

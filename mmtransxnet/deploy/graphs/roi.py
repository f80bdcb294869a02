"""Deploy forms of RoI heads: of Mask R-CNN and Cascade Mask R-CNN."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet.deploy.graphs.boxes import BoxDecoder
from mmtransxnet.deploy.graphs.nms import ABSENT, Suppression, detections
from mmtransxnet.deploy.graphs.roi_align import RoIExtractor, with_samples
from mmtransxnet.utils.errors import UserError

Features = tuple[Tensor, ...]


class BoxStage(nn.Module):
    """A box head and the features of its regions.

    Args:
        extractor: mmdet's RoI extractor.
        head: mmdet's box head.

    Raises:
        UserError: One of them has no deploy form.
    """

    def __init__(self, extractor: Any, head: Any) -> None:
        super().__init__()
        if (
            not head.with_cls
            or not head.with_reg
            or head.custom_cls_channels
            or head.custom_activation
        ):
            raise UserError(
                f'a {type(head).__name__} with a '
                f'{type(head.loss_cls).__name__} cannot be exported: expected '
                'class scores by softmax, and box regression'
            )
        self.extract = RoIExtractor(extractor)
        self.head = copy.deepcopy(head)
        self.decode = BoxDecoder(head.bbox_coder)
        self.class_agnostic = head.reg_class_agnostic

    def forward(
        self, features: Features, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Classify and regress.

        Args:
            features: Maps of the neck.
            boxes: Corners of the regions ``(B, R, 4)``.

        Returns:
            Logits ``(B, R, classes + 1)``, the last of the background, and
            deltas ``(B, R, classes or 1, 4)``.
        """
        pooled = self.extract(features, with_samples(boxes))
        logits, deltas = self.head(pooled)
        shape = (boxes.size(0), boxes.size(1))
        return logits.reshape(*shape, -1), deltas.reshape(*shape, -1, 4)

    def refine(
        self, boxes: Tensor, logits: Tensor, deltas: Tensor, sizes: Tensor
    ) -> Tensor:
        """The regions of the next stage ``(B, R, 4)``."""
        if self.class_agnostic:
            chosen = deltas[:, :, 0]
        else:
            label = logits[..., :-1].argmax(dim=-1)[..., None, None]
            chosen = deltas.gather(2, label.expand(-1, -1, 1, 4))[:, :, 0]
        return self.decode(boxes, chosen, sizes)


class BoxHeads(nn.Module):
    """The box heads of an RoI head, one or a cascade of them.

    Args:
        stages: The heads.
        config: ``test_cfg`` of the RoI head.
    """

    def __init__(self, stages: list[BoxStage], config: Any) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.score_threshold = config.score_thr
        self.suppression = Suppression(config, 'test_cfg.rcnn')

    def forward(
        self, features: Features, boxes: Tensor, valid: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect objects among proposals.

        Args:
            features: Maps of the neck.
            boxes: Proposals ``(B, R, 4)``.
            valid: Which of them are proposals ``(B, R)``.
            sizes: Heights and widths of the pictures ``(B, 2)``.

        Returns:
            See :func:`mmtransxnet.deploy.graphs.nms.detections`.
        """
        all_logits = []
        stages: list[Any] = list(self.stages)
        last = len(stages) - 1
        for i, stage in enumerate(stages):
            logits, deltas = stage(features, boxes)
            all_logits.append(logits)
            if i < last:
                boxes = stage.refine(boxes, logits, deltas, sizes)
        mean = sum(all_logits[1:], all_logits[0]) / len(all_logits)
        scores = mean.softmax(dim=-1)[..., :-1]
        allowed = valid[..., None] & (scores > self.score_threshold)
        scores = torch.where(allowed, scores, ABSENT)
        decoded = (
            stages[last]
            .decode(boxes[:, :, None], deltas, sizes)
            .expand(-1, -1, scores.size(2), -1)
        )
        labels = torch.arange(scores.size(2), device=scores.device)
        return detections(
            decoded.flatten(1, 2),
            scores.flatten(1),
            labels.expand(scores.shape).flatten(1),
            self.suppression,
        )


class MaskStage(nn.Module):
    """A mask head and the features of its regions.

    Args:
        extractor: mmdet's RoI extractor.
        head: mmdet's mask head.

    Raises:
        UserError: One of them has no deploy form.
    """

    def __init__(self, extractor: Any, head: Any) -> None:
        super().__init__()
        if type(head).__name__ != 'FCNMaskHead':
            raise UserError(
                f'a {type(head).__name__} cannot be exported: expected an '
                'FCNMaskHead'
            )
        self.extract = RoIExtractor(extractor)
        self.head = copy.deepcopy(head)
        self.class_agnostic = head.class_agnostic

    def forward(
        self, features: Features, rois: Tensor, labels: Tensor
    ) -> Tensor:
        """Probabilities of the class of each region, ``(R, h, w)``."""
        logits = self.head(self.extract(features, rois))
        if self.class_agnostic:
            return logits[:, 0].sigmoid()
        shape = (-1, 1, logits.size(2), logits.size(3))
        index = labels[:, None, None, None].expand(shape)
        return logits.gather(1, index)[:, 0].sigmoid()


class MaskHeads(nn.Module):
    """The mask heads of an RoI head; those of a cascade are averaged.

    Args:
        stages: The heads.
    """

    def __init__(self, stages: list[MaskStage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(
        self, features: Features, count: Tensor, boxes: Tensor, labels: Tensor
    ) -> Tensor:
        """Masks of detections.

        They are computed only where there is a detection, and at least for
        the first row, because many operators fail without rows.

        Args:
            features: Maps of the neck.
            count: Number of detections ``(B,)``.
            boxes: Their corners ``(B, K, 4)``.
            labels: Their classes ``(B, K)``.

        Returns:
            Probabilities ``(B, K, h, w)``, zeros from ``count`` on.
        """
        batch, num = labels.shape
        number = torch.arange(num, device=count.device)
        valid = number < count[:, None]
        first = torch.arange(batch * num, device=count.device) == 0
        # TensorRT finds what is not zero among floats only.
        chosen = (valid.flatten() | first).float().nonzero()[:, 0]
        torch._check(chosen.size(0) >= 1)
        rois = with_samples(boxes)[chosen]
        chosen_labels = labels.flatten()[chosen]
        masks = [stage(features, rois, chosen_labels) for stage in self.stages]
        mean = sum(masks[1:], masks[0]) / len(masks)
        out = mean.new_zeros(batch * num, mean.size(1), mean.size(2))
        out = out.index_put((chosen,), mean)
        out = out.reshape(batch, num, mean.size(1), mean.size(2))
        return torch.where(valid[..., None, None], out, 0)


def roi_heads(roi_head: Any) -> tuple[BoxHeads, MaskHeads | None]:
    """Deploy forms of the heads of an RoI head.

    Args:
        roi_head: mmdet's ``StandardRoIHead`` or ``CascadeRoIHead``.

    Raises:
        UserError: It has no deploy form.
    """
    name = type(roi_head).__name__
    if (
        name not in ('StandardRoIHead', 'CascadeRoIHead')
        or roi_head.with_shared_head
    ):
        raise UserError(
            f'a {name} cannot be exported: expected a StandardRoIHead or a '
            'CascadeRoIHead, without a shared_head'
        )
    pairs = zip(
        _listed(roi_head.bbox_roi_extractor),
        _listed(roi_head.bbox_head),
        strict=True,
    )
    boxes = BoxHeads([BoxStage(*pair) for pair in pairs], roi_head.test_cfg)
    if not roi_head.with_mask:
        return boxes, None
    pairs = zip(
        _listed(roi_head.mask_roi_extractor),
        _listed(roi_head.mask_head),
        strict=True,
    )
    return boxes, MaskHeads([MaskStage(*pair) for pair in pairs])


def _listed(module: Any) -> list[Any]:
    """The modules of the stages: a cascade has a list of them."""
    return list(module) if isinstance(module, nn.ModuleList) else [module]

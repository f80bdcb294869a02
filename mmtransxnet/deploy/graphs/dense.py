"""Deploy forms of dense heads: RPN and RetinaNet's.

A head's modules are used as they are; what follows them has a fixed number of
rows: the ``nms_pre`` best of every level, filled with absent candidates.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet.deploy.graphs.anchors import Anchors
from mmtransxnet.deploy.graphs.boxes import BoxDecoder, larger_than, rows
from mmtransxnet.deploy.graphs.nms import (
    ABSENT,
    Suppression,
    best_candidates,
    detections,
    present,
    top_scores,
)
from mmtransxnet.utils.errors import UserError

# Above every index of an anchor, and like these exact in float32.
_NO_ANCHOR = 2.0**24


class DenseHead(nn.Module):
    """What RPN and RetinaNet's head share.

    Args:
        head: The trained head.
        name: Its name in the config, for messages.

    Raises:
        UserError: The head, or its ``test_cfg``, has no deploy form.
    """

    def __init__(self, head: Any, name: str) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        self.anchors = Anchors(head.prior_generator)
        self.decode = BoxDecoder(head.bbox_coder)
        config = head.test_cfg
        self.num_candidates = int(config.get('nms_pre', 0))
        if self.num_candidates < 1:
            raise UserError(
                f'test_cfg of {name} has no nms_pre: set the number of '
                'candidates of a level'
            )
        self.min_size = config.get('min_bbox_size', -1)
        self.suppression = Suppression(config, f'test_cfg of {name}')

    def scores(self, logits: Tensor) -> Tensor:
        """Class scores of ``(B, A * channels, H, W)``.

        Returns:
            ``(B, H * W * A, classes)``, without the background.
        """
        logits = _rows_of_map(logits, self.head.cls_out_channels)
        if self.head.use_sigmoid_cls:
            return logits.sigmoid()
        return logits.softmax(dim=-1)[..., :-1]

    def boxes(
        self, level: int, deltas: Tensor, index: Tensor, sizes: Tensor
    ) -> Tensor:
        """Decoded boxes of some anchors of a level.

        Args:
            level: Index of the feature map.
            deltas: Outputs of the head ``(B, A * 4, H, W)``.
            index: Anchors of each sample ``(B, K)``.
            sizes: Heights and widths of the pictures ``(B, 2)``.

        Returns:
            Corners ``(B, K, 4)``.
        """
        anchors = self.anchors(level, deltas.size(2), deltas.size(3))
        chosen = rows(_rows_of_map(deltas, 4), index)
        return self.decode(anchors[index], chosen, sizes)

    def without_small(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Scores in which boxes that are too small are absent."""
        if self.min_size < 0:
            return scores
        return torch.where(larger_than(boxes, self.min_size), scores, ABSENT)


def _rows_of_map(x: Tensor, channels: int) -> Tensor:
    """``(B, A * channels, H, W)`` to ``(B, H * W * A, channels)``."""
    return x.permute(0, 2, 3, 1).reshape(x.size(0), -1, channels)


class RegionProposals(DenseHead):
    """RPN: feature maps to proposals."""

    def forward(
        self, features: tuple[Tensor, ...], sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Propose regions.

        Args:
            features: Maps of the neck ``(B, C, H_i, W_i)``.
            sizes: Heights and widths of the pictures ``(B, 2)``.

        Returns:
            Corners ``(B, K, 4)``, zeros where there is none, and which are
            proposals ``(B, K)``, boolean; K = ``max_per_img``.
        """
        all_boxes, all_scores, all_levels = [], [], []
        logits, deltas = self.head(features)
        for level, (logit, delta) in enumerate(
            zip(logits, deltas, strict=True)
        ):
            scores, index = best_candidates(
                self.scores(logit)[..., 0], self.num_candidates
            )
            boxes = self.boxes(level, delta, index, sizes)
            all_boxes.append(boxes)
            all_scores.append(self.without_small(boxes, scores))
            all_levels.append(torch.full_like(index, level))
        count, boxes, scores, _ = detections(
            torch.cat(all_boxes, dim=1),
            torch.cat(all_scores, dim=1),
            torch.cat(all_levels, dim=1),
            self.suppression,
        )
        number = torch.arange(scores.size(1), device=scores.device)
        return boxes, number < count[:, None]


class DenseDetections(DenseHead):
    """RetinaNet's head: feature maps to detections."""

    def __init__(self, head: Any, name: str) -> None:
        super().__init__(head, name)
        self.score_threshold = head.test_cfg.get('score_thr', 0)

    def forward(
        self, features: tuple[Tensor, ...], sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect objects.

        Args:
            features: Maps of the neck ``(B, C, H_i, W_i)``.
            sizes: Heights and widths of the pictures ``(B, 2)``.

        Returns:
            See :func:`mmtransxnet.deploy.graphs.nms.detections`.
        """
        all_boxes, all_scores, all_labels = [], [], []
        logits, deltas = self.head(features)
        for level, (logit, delta) in enumerate(
            zip(logits, deltas, strict=True)
        ):
            scores, index, labels = self.candidates(self.scores(logit))
            boxes = self.boxes(level, delta, index, sizes)
            all_boxes.append(boxes)
            all_scores.append(self.without_small(boxes, scores))
            all_labels.append(labels)
        return detections(
            torch.cat(all_boxes, dim=1),
            torch.cat(all_scores, dim=1),
            torch.cat(all_labels, dim=1),
            self.suppression,
        )

    def candidates(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of an anchor and a class.

        A pair among the best ``nms_pre`` belongs to an anchor among the best
        ``nms_pre`` by its best class. So the pairs of these are ranked, which
        are far fewer than all.

        Args:
            scores: ``(B, N, classes)``.

        Returns:
            Scores, anchors and labels ``(B, K)``, K = ``nms_pre``.
        """
        num, classes = self.num_candidates, scores.size(2)
        best = scores.amax(dim=2)
        best = torch.where(best > self.score_threshold, best, ABSENT)
        best, anchor = best_candidates(best, num)
        # In the order of anchors, because it is the order of equal scores.
        key = torch.where(present(best), -anchor.float(), -_NO_ANCHOR)
        number = -top_scores(key, num)[0]
        valid = number < _NO_ANCHOR
        anchor = torch.where(valid, number, 0).long()

        pairs = rows(scores, anchor)
        allowed = valid[..., None] & (pairs > self.score_threshold)
        pairs = torch.where(allowed, pairs, ABSENT).flatten(1)
        best, pair = best_candidates(pairs, num)
        row = pair // classes
        return best, anchor.gather(1, row), pair - row * classes

"""What a class activation explains: a score of a model, with its gradient.

A target computes one number from a normalised image. It is a logit, the score
before softmax or sigmoid: after them, a score near 1 has no gradient.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtransxnet.analysis.complexity import roi_stages
from mmtransxnet.utils.errors import UserError

PARTS = ('box', 'mask')
"""What of a detection is explained."""


@dataclass(frozen=True)
class Target:
    """A score, and what it is the score of.

    Attributes:
        compute: Computes the score, a scalar, from an image
            ``(1, 3, H, W)``.
        label: Number of the class.
        score: The model's own score of the prediction, 0 to 1; for a
            segmentor, the part of the picture where it predicts the class.
        box: Left, top, right, bottom of a detection in pixels of the picture.
        mask: Mask ``(H, W)``, bool, of the picture: of a detection, or where
            a segmentor predicts the class.
        stage: Of a detection, index of the stage whose resolution the head
            has read it from, which depends on its size.
    """

    compute: Callable[[Tensor], Tensor]
    label: int
    score: float
    box: np.ndarray | None = None
    mask: np.ndarray | None = None
    stage: int | None = None


def find_target(
    model: Any,
    inputs: Tensor,
    samples: Sequence[Any],
    wanted: int | None = None,
    part: str = 'box',
) -> Target:
    """The target of a model for one image.

    Args:
        model: A classifier, detector or segmentor, in evaluation mode.
        inputs: Normalised image ``(1, 3, H, W)``.
        samples: Its data sample, with the metainfo of the test pipeline.
        wanted: Class of a classifier or segmentor, rank of a detection from
            0. By default, the class that is predicted (for most of the
            picture), the detection with the highest score.
        part: Of a detection, ``'box'`` or ``'mask'``.

    Raises:
        UserError: There is no such class, detection or mask, or the model is
            of another kind.
    """
    if part not in PARTS:
        raise UserError(f'part {part!r}: expected one of {", ".join(PARTS)}')
    if is_detector(model):
        found = _detection(model, inputs, samples, wanted or 0)
        return _of_detection(model, inputs, samples[0], found, part)
    if part == 'mask':
        raise UserError(f'a {type(model).__name__} predicts no masks of boxes')
    if hasattr(model, 'decode_head'):
        return _segment(model, inputs, samples, wanted)
    if hasattr(model, 'head'):
        return _class(model, inputs, wanted)
    raise UserError(
        f'{type(model).__name__} is no classifier, detector or segmentor '
        'of this suite'
    )


def find_detections(
    model: Any, inputs: Tensor, samples: Sequence[Any], min_score: float
) -> list[Target]:
    """The targets of all detections of one image, by descending score.

    Args:
        model: A detector, in evaluation mode.
        inputs: Normalised image ``(1, 3, H, W)``.
        samples: Its data sample, with the metainfo of the test pipeline.
        min_score: Minimum score.
    """
    return [
        _of_detection(model, inputs, samples[0], found, 'box')
        for found in _detections(model, inputs, samples)
        if found.score >= min_score
    ]


def is_detector(model: Any) -> bool:
    """Whether a model predicts boxes."""
    return hasattr(model, 'bbox_head') or hasattr(model, 'roi_head')


def _of_detection(
    model: Any, inputs: Tensor, sample: Any, found: '_Detection', part: str
) -> Target:
    """The target of a detection."""
    if part == 'mask':
        return _mask(model, sample, found)
    if hasattr(model, 'roi_head'):
        return _region(model, sample, found)
    return _location(model, inputs, sample, found)


def _class(model: Any, inputs: Tensor, wanted: int | None) -> Target:
    with torch.no_grad():
        scores = model(inputs, mode='tensor')[0].softmax(0)
    label = int(scores.argmax()) if wanted is None else wanted
    _check_class(label, len(scores))
    return Target(
        lambda image: model(image, mode='tensor')[0, label],
        label,
        float(scores[label]),
    )


def _segment(
    model: Any, inputs: Tensor, samples: Sequence[Any], wanted: int | None
) -> Target:
    with torch.no_grad():
        (sample,) = model.predict(inputs, copy.deepcopy(list(samples)))
    predicted = sample.pred_sem_seg.data[0].cpu().numpy()
    if wanted is None:
        wanted = int(np.bincount(predicted.ravel()).argmax())
    _check_class(wanted, model.decode_head.out_channels)
    mask = predicted == wanted
    return Target(
        lambda image: model(image, mode='tensor')[0, wanted].mean(),
        wanted,
        float(mask.mean()),
        mask=mask,
    )


def _check_class(label: int, count: int) -> None:
    if not 0 <= label < count:
        raise UserError(
            f'class {label}: the model has the classes 0 to {count - 1}'
        )


@dataclass(frozen=True)
class _Detection:
    """A detection.

    Attributes:
        label: Number of the class.
        score: The score, 0 to 1.
        box: In pixels of the picture.
        inner_box: In pixels of the image that the model gets, ``(1, 4)``.
        mask: ``(H, W)``, bool, of the picture; None without masks.
    """

    label: int
    score: float
    box: np.ndarray
    inner_box: Tensor
    mask: np.ndarray | None

    def target(
        self, compute: Callable[[Tensor], Tensor], stride: int | None
    ) -> Target:
        """The target whose score is read from a map of a stride in pixels.

        The stride is None for scores that are read from several maps.
        """
        return Target(
            compute,
            self.label,
            self.score,
            self.box,
            self.mask,
            stage=None if stride is None else int(math.log2(stride / 4)),
        )


def _detection(
    model: Any, inputs: Tensor, samples: Sequence[Any], rank: int
) -> _Detection:
    """The detection with the given rank among the scores."""
    found = _detections(model, inputs, samples)
    if not 0 <= rank < len(found):
        raise UserError(
            f'detection {rank}: the model finds {len(found)} objects in this '
            'picture' + (', numbered from 0' if len(found) else '')
        )
    return found[rank]


@torch.no_grad()
def _detections(
    model: Any, inputs: Tensor, samples: Sequence[Any]
) -> list[_Detection]:
    """All detections, by descending score."""
    (sample,) = model.predict(inputs, copy.deepcopy(list(samples)))
    found = sample.pred_instances
    scale = found.bboxes.new_tensor(samples[0].metainfo['scale_factor'])
    return [
        _Detection(
            int(found.labels[i]),
            float(found.scores[i]),
            found.bboxes[i].cpu().numpy(),
            (found.bboxes[i] * scale.repeat(2))[None],
            found.masks[i].cpu().numpy() if 'masks' in found else None,
        )
        for i in found.scores.argsort(descending=True, stable=True).tolist()
    ]


def _region(model: Any, sample: Any, found: _Detection) -> Target:
    """Score of a two-stage detector with the detected box as its region.

    A cascade averages the logits of its stages, as in its prediction, each
    with the same region.
    """
    heads = model.roi_head

    def compute(image: Tensor) -> Tensor:
        maps, rois = model.extract_feat(image), _rois(found.inner_box)
        logits = [
            head(_pooled(heads, extractor, maps, rois))[0]
            for extractor, head in roi_stages(
                heads.bbox_roi_extractor, heads.bbox_head
            )
        ]
        return torch.stack(logits).mean(0)[0, found.label]

    stride = _stride(heads.bbox_roi_extractor, heads.bbox_head, found)
    return found.target(compute, stride)


def _mask(model: Any, sample: Any, found: _Detection) -> Target:
    """Mean of the mask's logits in the detected box."""
    if found.mask is None:
        raise UserError(f'a {type(model).__name__} predicts no masks')
    heads = model.roi_head

    def compute(image: Tensor) -> Tensor:
        maps, rois = model.extract_feat(image), _rois(found.inner_box)
        stages = [
            head(_pooled(heads, extractor, maps, rois))[0]
            for extractor, head in roi_stages(
                heads.mask_roi_extractor, heads.mask_head
            )
        ]
        logits = torch.stack(stages).mean(0)
        # A head without classes has one mask.
        return logits[found.label if len(logits) > 1 else 0].mean()

    stride = _stride(heads.mask_roi_extractor, heads.mask_head, found)
    return found.target(compute, stride)


def _stride(extractors: Any, heads: Any, found: _Detection) -> int | None:
    """Stride in pixels of the map that a detection's region is read from.

    None if the extractor reads it from all maps.
    """
    extractor, _ = next(roi_stages(extractors, heads))
    if not hasattr(extractor, 'map_roi_levels'):
        return None
    level = extractor.map_roi_levels(
        _rois(found.inner_box), extractor.num_inputs
    )
    return extractor.featmap_strides[int(level)]


def _rois(box: Tensor) -> Tensor:
    """A box ``(1, 4)`` of the first image of a batch as mmdet's region."""
    return torch.cat((box.new_zeros(1, 1), box), dim=1)


def _pooled(
    heads: Any, extractor: Any, maps: Sequence[Tensor], rois: Tensor
) -> Tensor:
    """Maps of a region, as mmdet's heads take them."""
    pooled = extractor(maps[: extractor.num_inputs], rois)
    return heads.shared_head(pooled) if heads.with_shared_head else pooled


def _location(
    model: Any, inputs: Tensor, sample: Any, found: _Detection
) -> Target:
    """Score of a dense head where it made the detection."""
    head = model.bbox_head
    with torch.no_grad():
        level, place = _origin(head, model, inputs, sample, found)

    def compute(image: Tensor) -> Tensor:
        scores, *_ = head(model.extract_feat(image))
        return _by_location(scores[level], head.cls_out_channels)[place]

    stride, _ = head.prior_generator.strides[level]
    return found.target(compute, stride)


def _origin(
    head: Any, model: Any, inputs: Tensor, sample: Any, found: _Detection
) -> tuple[int, tuple[int, int]]:
    """Level, and index of the anchor and class, of a detection.

    Suppression changes neither boxes nor scores, so it is the anchor with the
    same score whose box is nearest.
    """
    best = (float('inf'), 0, (0, 0))
    for level, scores, boxes in _decoded(head, model, inputs, sample):
        logits = scores[:, found.label]
        same = (logits.sigmoid() - found.score).abs() < 1e-5
        distance = (boxes - found.inner_box).abs().amax(1)
        distance = distance.masked_fill(~same, float('inf'))
        nearest = int(distance.argmin())
        if float(distance[nearest]) < best[0]:
            best = (float(distance[nearest]), level, (nearest, found.label))
    # Rounding by the scale of the picture only.
    if best[0] > 1.0:
        raise UserError(
            'the place of this detection in the head was not found: the '
            'scores of this detector are changed after the head'
        )
    return best[1], best[2]


def _decoded(
    head: Any, model: Any, inputs: Tensor, sample: Any
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Level, logits ``(n, classes)`` and boxes ``(n, 4)`` of all anchors."""
    scores, deltas, *_ = head(model.extract_feat(inputs))
    priors = head.prior_generator.grid_priors(
        [level.shape[-2:] for level in scores],
        dtype=inputs.dtype,
        device=inputs.device,
    )
    for i, prior in enumerate(priors):
        boxes = head.bbox_coder.decode(
            prior,
            _by_location(deltas[i], head.bbox_coder.encode_size),
            max_shape=sample.metainfo['img_shape'],
        )
        yield i, _by_location(scores[i], head.cls_out_channels), boxes


def _by_location(output: Tensor, channels: int) -> Tensor:
    """``(1, A * channels, H, W)`` to ``(H * W * A, channels)``."""
    return output[0].permute(1, 2, 0).reshape(-1, channels)

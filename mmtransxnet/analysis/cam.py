"""Class activation: where a model looks for its prediction.

Grad-CAM (arXiv 1610.02391) and Eigen-CAM (arXiv 2008.00299), computed by
pytorch-grad-cam, for classifiers, detectors and segmentors.

    model = Inferencer(config, checkpoint)
    activation = class_activation(model.model, model.prepare(picture))
    draw_activations(picture, [activation], 'cam.png')
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from mmtransxnet.analysis.observation import (
    backbone_of,
    check_stage,
    observing,
    run_stages,
)
from mmtransxnet.analysis.targets import Target, find_target
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.extras import import_extra

METHODS = ('grad-cam', 'eigen-cam')


@dataclass(frozen=True)
class Activation:
    """A class activation map.

    Attributes:
        map: Activation of each pixel of the picture ``(H, W)``, float32, 0 to
            1; NaN where the test pipeline crops the picture.
        target: What is explained.
        stage: Index of the stage whose output was used, from 0.
        method: Name of the method.
        part: Of a detection, ``'box'`` or ``'mask'``.
    """

    map: np.ndarray
    target: Target
    stage: int
    method: str
    part: str


def class_activation(
    model: Any,
    data: Mapping[str, Any],
    wanted: int | None = None,
    stage: int | None = None,
    method: str = 'grad-cam',
    part: str = 'box',
) -> Activation:
    """Compute a class activation map of one picture.

    Args:
        model: A classifier, detector or segmentor of this suite.
        data: The picture after the test pipeline, as
            :meth:`~mmtransxnet.apis.Inferencer.prepare` returns it.
        wanted: Class of a classifier or segmentor, rank of a detection; see
            :func:`~mmtransxnet.analysis.targets.find_target`.
        stage: Index of the stage whose output is used, from 0. By default the
            last one that the model runs; of a detection, the one with the
            resolution that the head has read it from.
        method: ``'grad-cam'``, or ``'eigen-cam'``, which shows what the stage
            responds to, whatever the class.
        part: Of a detection, ``'box'`` or ``'mask'``.

    Raises:
        UserError: A setting does not fit the model or the picture; the
            message names it.
        ImportError: grad-cam is not installed.
    """
    last = run_stages(model)[-1]
    check_map(model, last if stage is None else stage, method)
    with observing(model):
        batch = model.data_preprocessor(data, training=False)
        target = find_target(
            model, batch['inputs'], batch['data_samples'], wanted, part
        )
        if stage is None:
            # Pyramids have levels beyond the last stage.
            stage = last if target.stage is None else min(target.stage, last)
        return explain(model, batch, target, stage, method, part)


def check_map(model: nn.Module, stage: int, method: str) -> None:
    """Raise an error unless there is a map of a stage by a method.

    Args:
        model: A model of this suite.
        stage: Index of the stage, from 0.
        method: Name of the method.

    Raises:
        UserError: There is none.
    """
    if method not in METHODS:
        raise UserError(f'method {method!r}: one of {", ".join(METHODS)}')
    check_stage(model, stage)


def explain(
    model: Any,
    batch: Mapping[str, Any],
    target: Target,
    stage: int,
    method: str,
    part: str = 'box',
) -> Activation:
    """Compute the map of a target of a model that is being observed.

    The target may be older than the weights of the model: a detection that the
    model made with others.

    Args:
        model: A classifier, detector or segmentor of this suite.
        batch: ``inputs`` ``(1, 3, H, W)`` and ``data_samples`` of its data
            preprocessor.
        target: A target of the model.
        stage: Index of the stage whose output is used, from 0.
        method: Name of the method.
        part: Of a detection, ``'box'`` or ``'mask'``.
    """
    layer = backbone_of(model).network[2 * stage]
    values = _activation(model, layer, batch['inputs'], target.compute, method)
    found = on_picture(values, batch['data_samples'][0].metainfo)
    strongest = np.nanmax(found)  # may be less than 1: padded, or resized
    if strongest > 0:
        found /= strongest
    return Activation(found, target, stage, method, part)


def _activation(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    compute: Callable[[Tensor], Tensor],
    method: str,
) -> np.ndarray:
    """The map of the image that the model gets ``(H, W)``, 0 to 1."""
    kind = _methods()[method]
    with kind(_Score(model, compute), [layer]) as cam:
        found = cam(inputs.detach().requires_grad_(), [lambda score: score])
    return found[0]


class _Score(nn.Module):
    """A model that returns its score ``(1,)``, as pytorch-grad-cam expects."""

    def __init__(
        self, model: nn.Module, compute: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, image: Tensor) -> Tensor:
        return self.compute(image)[None]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: parameters get no gradients here, and keep theirs."""


@lru_cache
def _methods() -> dict[str, Any]:
    """Classes of pytorch-grad-cam by the name of the method."""
    library: Any = import_extra('pytorch_grad_cam', 'grad-cam')

    def get_cam_image(_: Any, *arguments: Any, **__: Any) -> np.ndarray:
        activations = arguments[3]
        return np.stack([first_component(a) for a in activations])

    # The library's own needs a matrix of the square of the map's size.
    eigen_cam = type(
        'EigenCAM', (library.EigenCAM,), {'get_cam_image': get_cam_image}
    )
    return {'grad-cam': library.GradCAM, 'eigen-cam': eigen_cam}


def first_component(activations: np.ndarray) -> np.ndarray:
    """Projection of a map onto its first principal component.

    The sign of a component is arbitrary. As in Seg-Eigen-CAM (Applied Sciences
    15, 7562), the largest absolute value becomes positive.

    Args:
        activations: ``(C, H, W)``.

    Returns:
        ``(H, W)``.
    """
    values = activations.reshape(len(activations), -1).T
    values = values - values.mean(axis=0)
    _, _, components = np.linalg.svd(values, full_matrices=False)
    projection = values @ components[0]
    if -projection.min() > projection.max():
        projection = -projection
    return projection.reshape(activations.shape[1:])


def on_picture(values: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """Move a map from the image that the model gets to the picture.

    Args:
        values: ``(H, W)``; what is below or to the right of ``img_shape`` is
            padding.
        meta: Metainfo of the test pipeline: ``ori_shape``, ``img_shape`` and,
            if it resizes, ``scale_factor`` (width, height). A centred crop is
            assumed where the resized picture is larger than ``img_shape``.

    Returns:
        ``(H, W)`` of the picture; NaN where it was cropped.
    """
    height, width = meta['img_shape'][:2]
    full_height, full_width = meta['ori_shape'][:2]
    scale = meta.get('scale_factor') or (
        width / full_width,
        height / full_height,
    )
    left, right = _extent(full_width, width, scale[0])
    top, bottom = _extent(full_height, height, scale[1])
    out = np.full((full_height, full_width), np.nan, dtype=np.float32)
    inside = np.ascontiguousarray(values[:height, :width], dtype=np.float32)
    out[top:bottom, left:right] = cv2.resize(
        inside, (right - left, bottom - top)
    )
    return out


def _extent(full: int, seen: int, scale: float) -> tuple[int, int]:
    """First and last pixel, plus 1, of the picture that the model gets."""
    cropped = max(0, round(full * scale) - seen)
    if not cropped:
        return 0, full
    first = round(cropped / 2) / scale
    return round(first), min(full, round(first + seen / scale))

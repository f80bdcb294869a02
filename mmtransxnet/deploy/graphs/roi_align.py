"""Features of regions from the level that fits their size."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet.utils.errors import UserError


@torch.library.custom_op('mmtransxnet_deploy::roi_align', mutates_args=())
def roi_align(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    size: int,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign of every region on its own level.

    Args:
        features: Maps of the levels ``(B, C, H_i, W_i)``.
        rois: Rows (sample, x1, y1, x2, y2) in pixels, ``(R, 5)``.
        levels: Index of the level of each region ``(R,)``.
        scales: Scales of the levels, the inverses of their strides.
        size: Rows and columns of the result S.
        sampling_ratio: Samples per bin and axis; 0 for as many as a bin has
            pixels.

    Returns:
        ``(R, C, S, S)``.
    """
    from torchvision.ops import roi_align as of_a_level

    out = features[0].new_zeros(len(rois), features[0].size(1), size, size)
    for i, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        index = (levels == i).nonzero().squeeze(1)
        out[index] = of_a_level(
            feature, rois[index], size, scale, sampling_ratio, aligned=True
        )
    return out


@roi_align.register_fake
def _(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    size: int,
    sampling_ratio: int,
) -> Tensor:
    channels = features[0].size(1)
    return rois.new_empty(rois.size(0), channels, size, size)


def translations(opset: int) -> dict[Callable, Callable]:
    """The operator's form in ONNX, for ``torch.onnx.export``."""
    import onnxscript

    op = onnxscript.values.Opset('', opset)

    def roi_align_onnx(
        features: Any,
        rois: Any,
        levels: Any,
        scales: Any,
        size: int,
        sampling_ratio: int,
    ) -> Any:
        column = op.Constant(value_ints=[0])
        images = op.Cast(
            op.Squeeze(op.Gather(rois, column, axis=1), [1]), to=7
        )
        corners = op.Gather(rois, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
        if sampling_ratio == 0:
            corners = _empty_outside(op, corners)
        parts, order = [], []
        for i, (feature, scale) in enumerate(
            zip(features, scales, strict=True)
        ):
            here = op.Cast(op.Equal(levels, op.Constant(value_int=i)), to=1)
            index = op.Squeeze(op.NonZero(here), [0])
            order.append(index)
            parts.append(
                op.RoiAlign(
                    feature,
                    op.Gather(corners, index, axis=0),
                    op.Gather(images, index, axis=0),
                    coordinate_transformation_mode='half_pixel',
                    output_height=size,
                    output_width=size,
                    sampling_ratio=sampling_ratio,
                    spatial_scale=scale,
                )
            )
        # Rows are in the order of levels; where each region went:
        order = op.Concat(*order, axis=0)
        count = op.Squeeze(op.Shape(order), [0])
        numbers = op.Range(0, count, 1)
        place = op.ScatterElements(numbers, order, numbers, axis=0)
        return op.Gather(op.Concat(*parts, axis=0), place, axis=0)

    return {torch.ops.mmtransxnet_deploy.roi_align.default: roi_align_onnx}


def _empty_outside(op: Any, corners: Any) -> Any:
    """Put empty regions outside of every map, where features are zeros.

    They have no samples, of which OpenVINO takes the mean.
    """
    starts = op.Gather(corners, op.Constant(value_ints=[0, 1]), axis=1)
    ends = op.Gather(corners, op.Constant(value_ints=[2, 3]), axis=1)
    extent = op.ReduceMin(
        op.Sub(ends, starts), op.Constant(value_ints=[1]), keepdims=1
    )
    outside = op.Constant(value_floats=[-1e4, -1e4, -9e3, -9e3])
    return op.Where(op.Greater(extent, 0.0), corners, outside)


class RoIExtractor(nn.Module):
    """mmdet's ``SingleRoIExtractor``.

    Args:
        extractor: That of a trained head.

    Raises:
        UserError: It is another extractor, or its layer another than RoIAlign
            with ``aligned=True``.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        layers = list(extractor.roi_layers)
        name = type(extractor).__name__
        layer = layers[0]
        if (
            name != 'SingleRoIExtractor'
            or type(layer).__name__ != 'RoIAlign'
            or layer.pool_mode != 'avg'
            or not layer.aligned
            or layer.output_size[0] != layer.output_size[1]
        ):
            raise UserError(
                f'a {name} with {layer} cannot be exported: expected a '
                'SingleRoIExtractor with a square RoIAlign, aligned=True and '
                "pool_mode='avg'"
            )
        self.scales = [float(layer.spatial_scale) for layer in layers]
        self.size = int(layer.output_size[0])
        self.sampling_ratio = int(layer.sampling_ratio)
        self.finest_scale = extractor.finest_scale

    def levels(self, rois: Tensor) -> Tensor:
        """Level of each region ``(R,)``, int64.

        The levels are octaves of the square root of the area. Comparisons
        are exact in every engine, unlike a logarithm.
        """
        extent = rois[:, 3:] - rois[:, 1:3]
        scale = (extent[:, 0] * extent[:, 1]).sqrt()
        octave = scale / self.finest_scale + 1e-6
        level = torch.zeros_like(octave, dtype=torch.long)
        for i in range(1, len(self.scales)):
            level = level + (octave >= math.ldexp(1, i)).long()
        return level

    def forward(self, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        """Sample regions.

        Args:
            features: Maps of the neck ``(B, C, H_i, W_i)``; those beyond the
                extractor's levels are not used.
            rois: Rows (sample, x1, y1, x2, y2) in pixels, ``(R, 5)``.

        Returns:
            ``(R, C, S, S)``.
        """
        used = list(features[: len(self.scales)])
        return roi_align(
            used,
            rois,
            self.levels(rois),
            self.scales,
            self.size,
            self.sampling_ratio,
        )


def with_samples(boxes: Tensor) -> Tensor:
    """Regions ``(B * K, 5)`` of boxes ``(B, K, 4)``: the sample in front."""
    sample = torch.arange(boxes.size(0), device=boxes.device).to(boxes)
    sample = sample[:, None, None].expand(-1, boxes.size(1), 1)
    return torch.cat([sample, boxes], dim=-1).flatten(0, 1)

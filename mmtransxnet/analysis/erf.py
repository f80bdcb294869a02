"""Effective receptive field (Luo et al. 2016, arXiv 1701.04128).

How strongly each pixel of the input changes the centre of a feature map.
Measured as in RepLKNet (arXiv 2203.06717): the gradient of the sum over the
channels of the position ``(H // 2, W // 2)`` with respect to the picture,
rectified, summed over the channels of the picture, mean over pictures.

    model = Inferencer(config, checkpoint).model
    fields = model_fields(model, example_pictures())
    draw_fields({'trained': fields}, 'erf.png')
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtransxnet.analysis.observation import (
    backbone_of,
    device_of,
    normalised,
    observing,
    run_stages,
    tensors,
)
from mmtransxnet.analysis.pictures import square
from mmtransxnet.models.transxnet import MIN_SIZE
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.extras import import_extra
from mmtransxnet.utils.text import shorten

SIZE = 1024
"""Default side of the pictures in pixels. Fields of 224 pixels and more look
alike in pictures of 224 x 224: they are cut off at the border."""

SHARES = (0.2, 0.3, 0.5, 0.99)
"""Shares of the contribution for which the squares are measured."""

Features = Callable[[Tensor], Sequence[Tensor]]
"""Maps an image ``(1, 3, H, W)`` to feature maps ``(1, C, h, w)``."""


@dataclass(frozen=True)
class Square:
    """The smallest centred square with a share of the contribution.

    Attributes:
        share: The share, 0 to 1.
        side: Side of the square in pixels.
        area: Its share of the picture's area, 0 to 1.
    """

    share: float
    side: int
    area: float


@dataclass(frozen=True)
class Field:
    """An effective receptive field.

    Attributes:
        stage: Name of the feature map.
        contribution: Contribution of each pixel ``(H, W)``, float64; its sum
            is 1.
    """

    stage: str
    contribution: np.ndarray

    def squares(self, shares: Iterable[float] = SHARES) -> list[Square]:
        """The smallest centred squares; see :func:`smallest_square`."""
        return [smallest_square(self.contribution, share) for share in shares]


def model_fields(
    model: nn.Module, pictures: Sequence[np.ndarray], size: int = SIZE
) -> list[Field]:
    """Fields of each stage of a model's TransXNet, without its output norm.

    Args:
        model: A classifier, detector or segmentor of this suite.
        pictures: Blue, green, red ``(H, W, 3)``, uint8; their centred squares
            are used.
        size: Side in pixels to which the pictures are resized.

    Returns:
        A field for each stage that the model runs.

    Raises:
        UserError: The model has no TransXNet, or the size is too small.
    """
    stages = run_stages(model)
    _check_size(size)
    backbone = backbone_of(model)

    def features(image: Tensor) -> list[Tensor]:
        maps = []
        for stage in stages:
            image = backbone.forward_stage(stage, image)
            maps.append(image)
        return maps

    images = [normalised(model, square(p, size)) for p in pictures]
    names = [f'stage {s + 1} (stride {4 * 2**s})' for s in stages]
    with observing(model):
        return receptive_fields(features, images, names)


def peer_fields(
    peer: Any, pictures: Sequence[np.ndarray], size: int = SIZE
) -> list[Field]:
    """Fields of the maps of a model that :func:`create_peer` built.

    Args:
        peer: The model.
        pictures: As for :func:`model_fields`.
        size: As for :func:`model_fields`.

    Returns:
        A field for the last map of each stride of 4 pixels and more.

    Raises:
        UserError: The size is too small.
    """
    _check_size(size)
    # The position in the list of maps, by stride.
    last = {
        info['reduction']: i
        for i, info in enumerate(peer.feature_info)
        if info['reduction'] >= 4
    }
    device = device_of(peer)

    def features(image: Tensor) -> list[Tensor]:
        maps = peer.forward_intermediates(
            image.to(device), intermediates_only=True, output_fmt='NCHW'
        )
        return [maps[i] for i in last.values()]

    mean, std = (peer.pretrained_cfg[key] for key in ('mean', 'std'))
    images = [_normalise(square(p, size), mean, std) for p in pictures]
    names = [f'stride {stride}' for stride in last]
    with observing(peer):
        return receptive_fields(features, images, names)


def create_peer(
    name: str, size: int = SIZE, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Build another model of timm; nothing is downloaded.

    Args:
        name: Name in timm, or the beginning of one such as ``swin_tiny``.
        size: Side of the pictures in pixels.
        state: Its weights; random ones if not given.

    Raises:
        UserError: timm has no such model, or it cannot be built for the
            size, or its maps cannot be taken, or the weights do not fit.
        ImportError: timm is not installed.
    """
    timm = import_extra('timm', 'timm')
    found = timm.list_models(name) or timm.list_models(f'{name}*')
    if not found:
        raise UserError(
            f'peer {name!r}: timm {timm.__version__} has no such model; '
            'timm.list_models() lists them'
        )
    model = _create(timm, found[0], size)
    if not hasattr(model, 'forward_intermediates'):
        raise UserError(
            f'peer {found[0]}: timm cannot return its feature maps; choose '
            'another'
        )
    if state is not None:
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f'peer {found[0]}: the weights do not fit: '
                f'{shorten(str(error), 400)}'
            ) from error
    return model


def _create(timm: Any, name: str, size: int) -> nn.Module:
    """Build a model, for a size if it has to know it."""
    try:
        try:
            return timm.create_model(name, pretrained=False, img_size=size)
        except TypeError:  # convolutions take any size
            return timm.create_model(name, pretrained=False)
    # Constructors raise many kinds of errors.
    except Exception as error:
        raise UserError(
            f'peer {name}: it cannot be built for {size} x {size} pixels: '
            f'{shorten(str(error), 400)}'
        ) from error


def receptive_fields(
    features: Features, images: Iterable[Tensor], names: Sequence[str]
) -> list[Field]:
    """Effective receptive fields of feature maps.

    Args:
        features: Computes the maps, without side effects.
        images: Normalised images ``(1, 3, H, W)`` of one size.
        names: A name for each map.

    Returns:
        A field for each map.

    Raises:
        UserError: No image was given, or a map does not depend on them.
    """
    sums: list[Any] = [0] * len(names)
    count = 0
    for image in images:
        count += 1
        for i, gradient in enumerate(_centre_gradients(features, image)):
            sums[i] = sums[i] + gradient
    if not count:
        raise UserError('no picture to measure the receptive field with')
    fields = []
    for name, total in zip(names, sums, strict=True):
        if not total.sum() > 0:
            raise UserError(f'{name} does not depend on the picture')
        fields.append(Field(name, total / total.sum()))
    return fields


def _centre_gradients(features: Features, image: Tensor) -> list[np.ndarray]:
    """The rectified gradient ``(H, W)`` of the centre of each map."""
    image = image.detach().requires_grad_()
    maps = features(image)
    gradients = []
    for feature in maps:
        height, width = feature.shape[2:]
        centre = feature[:, :, height // 2, width // 2].sum()
        # The maps share a part of the graph.
        (gradient,) = torch.autograd.grad(centre, image, retain_graph=True)
        rectified = gradient.clamp(min=0).sum(dim=(0, 1))
        gradients.append(rectified.double().cpu().numpy())
    return gradients


def smallest_square(contribution: np.ndarray, share: float) -> Square:
    """The smallest centred square that holds a share of the contribution.

    Args:
        contribution: ``(H, W)``, not negative. The centre is the pixel
            ``(H // 2, W // 2)``, so sides are odd, as in RepLKNet.
        share: Between 0 and 1.
    """
    height, width = contribution.shape
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    distance = np.maximum(rows[:, None], columns[None])
    rings = np.bincount(distance.ravel(), contribution.ravel())
    held = np.cumsum(rings)
    # The sum has rounding errors, which may keep it below a share of 1.
    radius = int(np.argmax(held >= share * held[-1] * (1 - 1e-12)))
    sides = [min(2 * radius + 1, side) for side in (height, width)]
    return Square(share, max(sides), sides[0] * sides[1] / contribution.size)


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise UserError(f'size {size}: at least {MIN_SIZE} pixels are needed')


def _normalise(
    picture: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Normalise a picture as timm does; mean and deviation of 0 to 1."""
    (image,) = tensors([picture[..., ::-1]])
    centre, scale = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    return ((image / 255 - centre) / scale)[None]

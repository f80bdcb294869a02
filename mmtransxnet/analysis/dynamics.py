"""What is dynamic in a TransXNet: what the network makes for one picture.

IDConv's kernels (paper, section III), the attention of OSRA, and the four
scales of MS-FFN, taken from the modules by forward hooks while the formula is
computed.

    model = Inferencer(config, checkpoint)
    observed = observe(model.model, model.prepare(picture))
    draw_kernels(observed, 'kernels.png')
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtransxnet.analysis.observation import (
    backbone_of,
    observing,
    run_stages,
)
from mmtransxnet.kernels.attention import resize_position_table
from mmtransxnet.kernels.settings import plain
from mmtransxnet.models.ms_ffn import MSFFN, MultiScaleDWConv
from mmtransxnet.models.token_mixer import OSRA, DMixer, IDConv
from mmtransxnet.utils.errors import UserError


@dataclass(frozen=True)
class Attention:
    """What one OSRA needs to compute the attention of any pixel.

    Attributes:
        queries: ``(heads, Nq, D)``.
        keys: ``(heads, Nk, D)``.
        position: Position bias ``(heads, Nq, Nk)``.
        shape: Height and width of the map of the queries.
        reduced: Height and width of the map of the keys.
    """

    queries: Tensor
    keys: Tensor
    position: Tensor
    shape: tuple[int, int]
    reduced: tuple[int, int]

    def of(self, y: float, x: float) -> np.ndarray:
        """Attention of a pixel, with content and position.

        Args:
            y: Row of the pixel, as a share of the height, 0 to 1.
            x: Column, as a share of the width.

        Returns:
            ``(heads, h, w)`` over the map of the keys; each head's sum is 1.
        """
        query = self._query(y, x)
        scores = self.keys @ self.queries[:, query, :, None]
        scores = scores[..., 0] / math.sqrt(self.queries.size(-1))
        return self._softmax(scores + self.position[:, query])

    def of_position(self, y: float, x: float) -> np.ndarray:
        """As :meth:`of`, from the position table alone."""
        return self._softmax(self.position[:, self._query(y, x)])

    def _query(self, y: float, x: float) -> int:
        height, width = self.shape
        if not (0 <= y <= 1 and 0 <= x <= 1):
            raise UserError(f'pixel ({y}, {x}): shares of 0 to 1 are expected')
        row, column = min(int(y * height), height - 1), int(x * width)
        return row * width + min(column, width - 1)

    def _softmax(self, scores: Tensor) -> np.ndarray:
        values = scores.softmax(-1).unflatten(-1, self.reduced)
        return values.cpu().numpy()


@dataclass(frozen=True)
class Observation:
    """What the blocks made of one picture; lists have an entry per block.

    Attributes:
        stages: Stage of each block, from 0.
        kernels: IDConv's kernels ``(c, K, K)`` for this picture.
        learned: IDConv's learned kernels ``(G, c, K, K)``.
        attentions: Of each OSRA.
        energies: Energy ``(4,)`` of what each depthwise convolution of MS-FFN
            adds to its quarter of the channels, sizes 1, 3, 5, 7: mean square
            over channels and positions, relative to that of its input.
    """

    stages: list[int]
    kernels: list[np.ndarray] = field(default_factory=list)
    learned: list[np.ndarray] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    energies: list[np.ndarray] = field(default_factory=list)

    def last_of(self, stage: int) -> int:
        """Index of the last block of a stage.

        Raises:
            UserError: The model does not run the stage.
        """
        if stage not in self.stages:
            raise UserError(f'stage {stage + 1} is not run')
        return len(self.stages) - 1 - self.stages[::-1].index(stage)


def observe(model: Any, data: Mapping[str, Any]) -> Observation:
    """Run the backbone of a model on one picture and observe its blocks.

    Args:
        model: A classifier, detector or segmentor of this suite.
        data: The picture after the test pipeline, as
            :meth:`~mmtransxnet.apis.Inferencer.prepare` returns it.

    Raises:
        UserError: The model has no TransXNet, or its blocks have other modules
            than the paper's.
    """
    backbone_of(model)
    with observing(model):
        inputs = model.data_preprocessor(data, training=False)['inputs']
        return observe_backbone(model, inputs)


def observe_each(
    model: Any, data: Iterable[Mapping[str, Any]]
) -> list[Observation]:
    """As :func:`observe`, of several pictures, one after another.

    Args:
        model: A classifier, detector or segmentor of this suite.
        data: Each picture after the test pipeline.

    Returns:
        The observations; without attentions but for the first. Those of a
        picture of 800 x 1216 take more than a GiB.
    """
    found: list[Observation] = []
    for item in data:
        observed = observe(model, item)
        found.append(replace(observed, attentions=[]) if found else observed)
    return found


def observe_backbone(model: nn.Module, image: Tensor) -> Observation:
    """As :func:`observe`, of a normalised image ``(1, 3, H, W)``."""
    backbone: Any = backbone_of(model)
    stages = run_stages(model)
    blocks = [(s, b) for s in stages for b in backbone.network[2 * s]]
    for _, block in blocks:
        _check_parts(block.token_mixer, block.mlp)
    found = Observation([stage for stage, _ in blocks])
    with ExitStack() as stack:
        stack.enter_context(observing(backbone))
        stack.enter_context(torch.no_grad())
        stack.enter_context(plain())
        for _, block in blocks:
            _hook(stack, block.token_mixer.local_unit, found, _keep_kernel)
            _hook(stack, block.token_mixer.global_unit, found, _keep_attention)
            _hook(stack, block.mlp.dwconv, found, _keep_energies)
        backbone(image)
    return found


def _check_parts(mixer: nn.Module, ffn: nn.Module) -> None:
    """Raise an error for other modules than the paper's."""
    if type(mixer) is not DMixer or type(ffn) is not MSFFN:
        raise UserError(
            f'the blocks have {type(mixer).__name__} and '
            f'{type(ffn).__name__}; this analysis is made for DMixer and MSFFN'
        )
    convs: Any = ffn.dwconv.proj
    sizes = tuple(conv.kernel_size[0] for conv in convs)
    if sizes != MultiScaleDWConv.kernel_sizes:
        raise UserError(
            f'MSFFN has kernels of {sizes}; this analysis is made for '
            f'{MultiScaleDWConv.kernel_sizes}'
        )


def _hook(
    stack: ExitStack,
    module: nn.Module,
    found: Observation,
    keep: Callable[[Observation, Any, tuple[Tensor, ...]], None],
) -> None:
    """Call ``keep`` with the inputs of a module until the stack closes."""
    handle = module.register_forward_pre_hook(
        lambda of, inputs: keep(found, of, inputs)
    )
    stack.callback(handle.remove)


def _keep_kernel(
    found: Observation, unit: IDConv, inputs: tuple[Tensor, ...]
) -> None:
    found.kernels.append(kernels_of(unit, inputs[0])[0].cpu().numpy())
    found.learned.append(unit.weight.cpu().numpy())


def kernels_of(unit: IDConv, x: Tensor) -> Tensor:
    """The kernels ``(B, c, K, K)`` that an IDConv makes for its input.

    Args:
        unit: The module.
        x: Its input ``(B, c, H, W)``.
    """
    pooled = nn.functional.adaptive_avg_pool2d(x, unit.kernel_size)
    return unit._mix(pooled, unit.weight)


def _keep_attention(
    found: Observation, unit: OSRA, inputs: tuple[Tensor, ...]
) -> None:
    found.attentions.append(attention_of(unit, *inputs))


def attention_of(unit: OSRA, x: Tensor, position: Tensor) -> Attention:
    """The attention of an OSRA for its inputs, of the first sample.

    Args:
        unit: The module.
        x: Feature map ``(1, c, H, W)``.
        position: Position bias, as its ``forward`` takes it.
    """
    reduced = unit.local_conv(unit.sr(x))
    keys = unit.kv(reduced).chunk(2, dim=1)[0]
    height, width = x.shape[2:]
    rows, columns = reduced.shape[2:]
    position = resize_position_table(position, height * width, rows * columns)
    return Attention(
        unit._heads(unit.q(x))[0],
        unit._heads(keys)[0],
        position[0].detach(),
        (height, width),
        (rows, columns),
    )


def _keep_energies(
    found: Observation, unit: MultiScaleDWConv, inputs: tuple[Tensor, ...]
) -> None:
    found.energies.append(energies_of(unit, inputs[0]).cpu().numpy())


def energies_of(unit: MultiScaleDWConv, x: Tensor) -> Tensor:
    """Energy of the four scales of an MS-FFN; see :class:`Observation`."""
    energies = []
    for part, conv in zip(x.split(unit.splits, 1), unit.proj, strict=True):
        added = conv(part) - part  # the convolution has a residual
        energies.append(added.square().mean() / part.square().mean())
    return torch.stack(energies)


@dataclass(frozen=True)
class Spread:
    """How much the kernels of a block differ between pictures.

    Attributes:
        relative: Standard deviation over the pictures (root of the mean
            variance of all values), relative to the root of the mean square
            of the mean kernels; 0 for a static convolution.
        between: Part of the variance that is between the means of the
            classes, 0 to 1; NaN without classes.
        points: The pictures on the first two principal components
            ``(n, 2)``.
        explained: Part of the variance of each of the two components.
    """

    relative: float
    between: float
    points: np.ndarray
    explained: np.ndarray


def kernel_spread(
    kernels: Sequence[np.ndarray], classes: Sequence[Any] | None = None
) -> Spread:
    """Compare the kernels of one block for several pictures.

    Args:
        kernels: ``(c, K, K)`` of each picture.
        classes: Class of each picture.

    Raises:
        UserError: There are fewer than 3 pictures.
    """
    if len(kernels) < 3:
        raise UserError(
            f'{len(kernels)} pictures: the spread of the kernels needs 3'
        )
    values = np.stack([k.ravel() for k in kernels]).astype(np.float64)
    mean = values.mean(0)
    centred = values - mean
    total = (centred**2).sum()
    relative = math.sqrt(total / centred.size) / math.sqrt((mean**2).mean())
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    explained = sizes[:2] ** 2 / total if total > 0 else np.zeros(2)
    return Spread(
        relative,
        _between(centred, classes, total),
        left[:, :2] * sizes[:2],
        explained,
    )


def _between(
    centred: np.ndarray, classes: Sequence[Any] | None, total: float
) -> float:
    """Part of the variance that is between the means of the classes."""
    if classes is None or not total > 0:
        return math.nan
    labels = np.asarray(classes)
    sums = [
        (labels == label).sum() * (centred[labels == label].mean(0) ** 2).sum()
        for label in np.unique(labels)
    ]
    return float(sum(sums) / total)

"""The pictures of what is dynamic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from mmtransxnet.analysis.drawing.common import new_figure, save, show_picture
from mmtransxnet.analysis.dynamics import Observation, kernel_spread
from mmtransxnet.models.ms_ffn import MultiScaleDWConv

_CHANNELS = 3
"""Channels of a block whose kernels are drawn."""

_SIGNED = Normalize(-1, 1)
_RELATIVE = Normalize(0, 1)


def draw_kernels(observed: Observation, path: str | Path) -> None:
    """Draw IDConv's kernels beside the learned ones.

    The last block of each stage; of it, the channels whose kernel differs most
    from the mean of the learned ones.

    Args:
        observed: From :func:`~mmtransxnet.analysis.dynamics.observe`.
        path: Where the PNG goes.
    """
    stages = sorted(set(observed.stages))
    groups = max(len(learned) for learned in observed.learned)
    columns = _CHANNELS * (groups + 1)
    figure = new_figure(1.15 * columns + 1.5, 1.5 * len(stages) + 1)
    grid = figure.subplots(len(stages), columns, squeeze=False)
    for row, stage in zip(grid, stages, strict=True):
        for axis in row:
            axis.set_axis_off()
        block = observed.last_of(stage)
        _kernel_row(row, observed, block, groups)
        row[0].set_title(f'stage {stage + 1}\nlearned 1', fontsize=8)
    figure.suptitle(
        'IDConv: kernels made for this picture beside the learned ones\n'
        '(last block of each stage; the three channels that differ most from '
        'the mean of the learned ones)'
    )
    figure.colorbar(
        ScalarMappable(_SIGNED, 'RdBu_r'),
        ax=grid,
        label='weight relative to the largest of its channel',
    )
    save(figure, path)


def _kernel_row(
    row: Any, observed: Observation, block: int, groups: int
) -> None:
    """Draw a block's channels: their learned kernels, then the made one."""
    made, learned = observed.kernels[block], observed.learned[block]
    change = np.abs(made - learned.mean(0)).sum((1, 2))
    for place, channel in enumerate(np.argsort(-change)[:_CHANNELS]):
        kernels = [*learned[:, channel], made[channel]]
        scale = max(np.abs(kernel).max() for kernel in kernels)
        names = [f'learned {n + 1}' for n in range(len(learned))] + [
            f'made (ch. {channel})'
        ]
        first = place * (groups + 1)
        for i, (kernel, name) in enumerate(zip(kernels, names, strict=True)):
            axis = row[first + i]
            axis.imshow(kernel / scale, norm=_SIGNED, cmap='RdBu_r')
            weight = 'bold' if name.startswith('made') else 'normal'
            axis.set_title(name, fontsize=8, weight=weight)


def draw_attention(
    observed: Observation,
    image: np.ndarray,
    path: str | Path,
    x: float = 0.5,
    y: float = 0.5,
) -> None:
    """Draw where a pixel attends: position alone, with content, each head.

    Args:
        observed: From :func:`~mmtransxnet.analysis.dynamics.observe`.
        image: The image that the model gets, blue, green, red ``(H, W, 3)``.
        path: Where the PNG goes.
        x: The pixel, as a share of the width, 0 to 1.
        y: The pixel, as a share of the height, 0 to 1.
    """
    stages = sorted(set(observed.stages))
    heads = max(len(attention.keys) for attention in observed.attentions)
    columns = heads + 3
    figure = new_figure(1.5 * columns + 1.2, 1.8 * len(stages) + 0.8)
    grid = figure.subplots(len(stages), columns, squeeze=False)
    height, width = image.shape[:2]
    for row, stage in zip(grid, stages, strict=True):
        for axis in row:
            axis.set_axis_off()
        found = observed.attentions[observed.last_of(stage)]
        content = found.of(y, x)
        maps = [found.of_position(y, x).mean(0), content.mean(0), *content]
        names = [
            'position alone',
            'with content',
            *(f'head {n + 1}' for n in range(len(content))),
        ]
        show_picture(row[0], image)
        row[0].set_title(f'stage {stage + 1}', fontsize=9)
        for axis, values, name in zip(row[1:], maps, names, strict=False):
            show_picture(axis, image)
            axis.imshow(
                values / values.max(),
                norm=_RELATIVE,
                cmap='inferno',
                alpha=0.65,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
            # All pixels are bright where they get equal attention.
            times = values.max() * values.size
            axis.set_title(f'{name}\n{times:.1f} x the mean', fontsize=9)
        for axis in row[: len(maps) + 1]:
            axis.plot(x * width, y * height, '+', color='lime', ms=9, mew=2)
    figure.suptitle(
        'OSRA: where the marked pixel attends (last block of each stage; '
        'without a head: mean of the heads)\n'
        'Below the names: how strong the strongest is; at 1.0 x the mean, '
        'all are equal'
    )
    figure.colorbar(
        ScalarMappable(_RELATIVE, 'inferno'),
        ax=grid,
        label='attention relative to the strongest key',
    )
    save(figure, path)


def draw_scales(observed: Observation, path: str | Path) -> None:
    """Draw the energies of MS-FFN's four scales in each block.

    Args:
        observed: From :func:`~mmtransxnet.analysis.dynamics.observe`.
        path: Where the PNG goes.
    """
    energies = np.stack(observed.energies)
    figure = new_figure(max(7, 0.5 * len(energies) + 3), 4)
    axis = figure.subplots()
    places = np.arange(len(energies))
    for i, size in enumerate(MultiScaleDWConv.kernel_sizes):
        axis.bar(
            places + 0.2 * (i - 1.5),
            energies[:, i],
            0.2,
            label=f'{size} x {size}',
        )
    axis.set_yscale('log')
    axis.set_xticks(places, _block_names(observed), fontsize=8)
    axis.set_xlabel('block (stage.block)')
    axis.set_ylabel('energy added by the convolution,\nrelative to its input')
    axis.grid(alpha=0.3, axis='y')
    axis.legend(title='kernel size')
    figure.suptitle('MS-FFN: what each of its four scales adds')
    save(figure, path)


def draw_spread(
    observed: Sequence[Observation],
    path: str | Path,
    classes: Sequence[str] | None = None,
) -> None:
    """Draw how much IDConv's kernels differ between pictures and classes.

    Args:
        observed: Of each picture, at least 3.
        path: Where the PNG goes.
        classes: Class of each picture.
    """
    first = observed[0]
    stages = sorted(set(first.stages))
    spreads = [
        kernel_spread([o.kernels[block] for o in observed], classes)
        for block in range(len(first.stages))
    ]
    figure = new_figure(3.3 * len(stages), 6.4)
    upper, lower = figure.subfigures(2, 1)
    axes = upper.subplots(1, len(stages), squeeze=False)[0]
    for axis, stage in zip(axes, stages, strict=True):
        spread = spreads[first.last_of(stage)]
        _scatter(axis, spread.points, classes)
        share = spread.explained
        axis.set_xlabel(f'component 1 ({share[0]:.0%} of the variance)')
        axis.set_ylabel(f'component 2 ({share[1]:.0%})')
        note = '' if classes is None else f'\nbetween: {spread.between:.0%}'
        axis.set_title(f'stage {stage + 1}, last block{note}', fontsize=9)
    bars = lower.subplots()
    bars.bar(_block_names(first), [spread.relative for spread in spreads])
    bars.set_xlabel('block (stage.block)')
    bars.set_ylabel('spread of the kernels relative\nto their mean')
    bars.grid(alpha=0.3, axis='y')
    if classes is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        upper.legend(handles, labels, loc='outside right upper', title='class')
    figure.suptitle(
        f'IDConv: how the kernels of {len(observed)} pictures differ'
        + ('' if classes is None else ' (between: variance between classes)')
    )
    save(figure, path)


def _scatter(
    axis: Any, points: np.ndarray, classes: Sequence[str] | None
) -> None:
    labels = np.asarray(
        ['pictures'] * len(points) if classes is None else classes
    )
    for i, label in enumerate(np.unique(labels)):
        mine = points[labels == label]
        color = f'C{i % 10}'
        marker = 'os^v<>DPX*'[i // 10 % 10]
        axis.scatter(*mine.T, s=14, color=color, marker=marker, label=label)
    axis.tick_params(labelsize=7)


def _block_names(observed: Observation) -> list[str]:
    """``stage.block`` of each block, from 1."""
    names = []
    for i, stage in enumerate(observed.stages):
        block = i - observed.stages.index(stage)
        names.append(f'{stage + 1}.{block + 1}')
    return names

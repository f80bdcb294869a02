"""The picture of tools/benchmark/speed.py."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# The same color for the same name in all panels.
Colors = dict[str, str]


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against throughput, time and memory against size.

    Args:
        results: Entries of ``speed.json``.
        path: Where the picture goes.
    """
    modes = list(dict.fromkeys(found['mode'] for found in results))
    figure, axes = plt.subplots(
        len(modes), 3, figsize=(15, 4.5 * len(modes)), squeeze=False
    )
    colors: Colors = {}
    for mode, row in zip(modes, axes, strict=True):
        mine = [found for found in results if found['mode'] == mode]
        _accuracy(row[0], mine, colors)
        _growth(row[1], mine, 'median', 'seconds', colors)
        _growth(row[2], mine, 'peak_mib', 'peak memory in MiB', colors)
        for axis in row:
            if axis.axison:
                axis.set_title(mode)
                axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _accuracy(
    axis: Axes, results: list[dict[str, Any]], colors: Colors
) -> None:
    """Top-1 against throughput at 224 x 224, one line per model family."""
    lines = defaultdict(list)
    for result in results:
        if result['top1'] is None or not result['shape'].endswith('x224x224'):
            continue
        family = re.split('[-_]', result['model'])[0]
        name = family + result['case'].removeprefix(result['model'])
        lines[name].append((result['images_per_second'], result['top1']))
    _lines(axis, lines, colors)
    axis.set_xlabel('images per second, 224 x 224')
    axis.set_ylabel('ImageNet top-1 in percent, as published')


def _growth(
    axis: Axes,
    results: list[dict[str, Any]],
    key: str,
    label: str,
    colors: Colors,
) -> None:
    """A figure against the pixels of a batch, for several image sizes."""
    lines = defaultdict(list)
    for result in results:
        if result[key] is not None:
            batch = result['shape'].split('x')[0]
            name = f'{result["case"]}, batch {batch}'
            lines[name].append((result['megapixels'], result[key]))
    several = {k: line for k, line in lines.items() if len(line) > 1}
    _lines(axis, several, colors)
    axis.set_yscale('log')
    axis.set_xlabel('megapixels of the batch')
    axis.set_ylabel(label)


def _lines(
    axis: Axes, lines: dict[str, list[tuple[float, float]]], colors: Colors
) -> None:
    """Draw lines with a legend; without any, nothing but empty space."""
    if not lines:
        axis.set_axis_off()
        return
    for name, points in lines.items():
        color = colors.setdefault(name, f'C{len(colors)}')
        x, y = zip(*sorted(points), strict=True)
        axis.plot(x, y, 'o-', color=color, label=name, ms=4)
    axis.set_xscale('log')
    axis.xaxis.set_major_formatter('{x:g}')
    axis.xaxis.set_minor_formatter('{x:g}')
    axis.tick_params(axis='x', which='minor', labelsize=6)
    axis.legend(fontsize=7)

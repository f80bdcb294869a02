"""The picture of tools/benchmark/speed.py."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes


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
    for mode, row in zip(modes, axes, strict=True):
        mine = [found for found in results if found['mode'] == mode]
        _accuracy(row[0], mine)
        _growth(row[1], mine, 'median', 'seconds')
        _growth(row[2], mine, 'peak_mib', 'peak memory in MiB')
        for axis in row:
            axis.set_title(mode)
            axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _accuracy(axis: Axes, results: list[dict[str, Any]]) -> None:
    """Top-1 at 224 x 224 against throughput, at the smallest images."""
    smallest = min(found['megapixels'] for found in results)
    for found in results:
        if found['top1'] is None or found['megapixels'] > smallest:
            continue
        axis.scatter(found['images_per_second'], found['top1'], s=16)
        axis.annotate(
            found['case'],
            (found['images_per_second'], found['top1']),
            fontsize=7,
        )
    axis.set_xscale('log')
    axis.set_xlabel('images per second')
    axis.set_ylabel('ImageNet top-1 in percent, as published')


def _growth(
    axis: Axes, results: list[dict[str, Any]], key: str, label: str
) -> None:
    """A figure against the pixels of the batch."""
    lines = defaultdict(list)
    for found in results:
        if found[key] is not None:
            lines[found['case']].append((found['megapixels'], found[key]))
    for case, points in lines.items():
        axis.plot(*zip(*sorted(points), strict=True), 'o-', label=case, ms=4)
    axis.set_xscale('log')
    axis.set_yscale('log')
    axis.set_xlabel('megapixels of the batch')
    axis.set_ylabel(label)
    if lines:
        axis.legend(fontsize=6)

"""One picture of a data set: samples with their annotations, histograms."""

import math
import random
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from PIL import Image, ImageOps

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Object,
    Picture,
    Prepared,
)
from mmtransxnet.own_data.sizes import (
    counts_of_classes,
    object_sizes,
    picture_sizes,
    sides,
    unit_of,
)
from mmtransxnet.utils.text import shorten

Colour = tuple[float, float, float]
Colours = dict[str, Colour]

_COLUMNS, _ROWS = 6, 3
_LONGEST = 480
"""Long side of a sample in pixels; larger ones are reduced."""

_MOST_NAMES = 20
"""Objects in a picture up to which each has its class beside it; more names
would hide the boxes. The bars have the colours of the classes."""

_MOST_BARS = 20
_MOST_IN_LEGEND = 12
_CLOSEST_TICKS = 0.15
"""Least difference of logarithms."""

_IGNORED = 255
"""Label of pixels without a class."""


def draw_overview(prepared: Prepared, path: Path) -> None:
    """Draw samples and histograms into a PNG.

    Args:
        prepared: The data.
        path: The file.
    """
    samples = samples_of(prepared)
    rows = math.ceil(len(samples) / _COLUMNS)
    figure = Figure(figsize=(16, 3.25 * (rows + 1)), layout='constrained')
    grid = figure.add_gridspec(rows + 1, _COLUMNS)
    colours = _colours(prepared)
    for number, picture in enumerate(samples):
        cell = grid[number // _COLUMNS, number % _COLUMNS]
        _draw_sample(figure.add_subplot(cell), picture, prepared, colours)
    third = _COLUMNS // 3
    axes = [
        figure.add_subplot(grid[rows, i * third : (i + 1) * third])
        for i in range(3)
    ]
    _draw_classes(axes[0], prepared, colours)
    _draw_histogram(
        axes[1],
        sides(picture_sizes(prepared.collection.pictures)),
        'sizes of pictures',
    )
    if prepared.collection.task == DETECTION:
        sizes = sides(object_sizes(prepared.collection.pictures))
        _draw_histogram(axes[2], sizes, 'sizes of objects')
    else:
        _draw_legend(axes[2], prepared, colours)
    figure.savefig(path, dpi=80)


def samples_of(prepared: Prepared) -> list[Picture]:
    """Choose pictures: one of each class, then any; the same each time."""
    pictures = prepared.collection.pictures
    chosen: dict[int, Picture] = {}
    seen: set[str] = set()
    for number, picture in enumerate(pictures):
        labels = {item.label for item in picture.objects}
        if picture.label is not None:
            labels.add(picture.label)
        if labels - seen:
            seen |= labels
            chosen[number] = picture
    most = _COLUMNS * _ROWS
    anywhere = random.Random(0).sample(
        range(len(pictures)), min(len(pictures), 2 * most)
    )
    # Half of the cells at least are any, if there are many classes.
    few = list(dict.fromkeys([*list(chosen)[: most // 2], *anywhere]))[:most]
    return [pictures[number] for number in sorted(few)]


def _colours(prepared: Prepared) -> Colours:
    """A colour for each class, from the palette if the data has one."""
    data = prepared.collection
    if data.palette and len(data.palette) == len(data.classes):
        return {
            name: (red / 255, green / 255, blue / 255)
            for name, (red, green, blue) in zip(
                data.classes, data.palette, strict=True
            )
        }
    # Steps of the golden ratio keep neighbours apart.
    return {
        name: hsv_to_rgb(number * 0.618034 % 1, 0.85, 0.95)
        for number, name in enumerate(data.classes)
    }


def _draw_sample(
    axes: Axes,
    picture: Picture,
    prepared: Prepared,
    colours: Colours,
) -> None:
    axes.set_axis_off()
    title = f'{picture.split}: {picture.path.name}'
    if picture.label is not None:
        title = f'{picture.split}: {picture.label}'
    axes.set_title(_plain(title, 34), fontsize=8)
    try:
        with Image.open(picture.path) as file:
            image = ImageOps.exif_transpose(file).convert('RGB')
    # Pillow raises many kinds of errors for broken files.
    except Exception:
        axes.text(0.5, 0.5, 'cannot be read', ha='center')
        return
    image.thumbnail((_LONGEST, _LONGEST))
    axes.imshow(
        image, extent=(0, picture.width, picture.height, 0), aspect='equal'
    )
    if prepared.collection.task == SEGMENTATION:
        _draw_label_map(axes, picture, prepared, colours)
    else:
        for item in picture.objects:
            _draw_object(axes, item, colours[item.label])
        if len(picture.objects) <= _MOST_NAMES:
            for item in picture.objects:
                _draw_name(axes, item, colours[item.label], picture.height)
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)


def _draw_object(axes: Axes, item: Object, colour: Colour) -> None:
    left, top, right, bottom = item.box
    axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=colour,
            linewidth=1.5,
            linestyle=':' if item.crowd else '-',
        )
    )
    if isinstance(item.mask, list):
        for points in item.mask:
            corners = np.reshape(points, (-1, 2))
            axes.add_patch(
                Polygon(corners, facecolor=colour, alpha=0.4, linewidth=0)
            )
    elif item.mask is not None:
        _draw_run_lengths(axes, item.mask, colour)


def _draw_name(axes: Axes, item: Object, colour: Colour, height: int) -> None:
    left, top, *_ = item.box
    name = axes.text(
        left,
        top,
        _plain(item.label, 16),
        fontsize=6,
        color='white',
        # Inside the box where there is no place above it.
        va='top' if top < 0.08 * height else 'bottom',
        clip_on=True,
        bbox=dict(facecolor=colour, edgecolor='none', pad=0.5, alpha=0.8),
    )
    # Measuring hundreds of names for the layout is slow.
    name.set_in_layout(False)


def _draw_run_lengths(axes: Axes, mask: Any, colour: Colour) -> None:
    # Only data with masks needs it.
    from pycocotools import mask as coco

    height, width = mask['size']
    if isinstance(mask['counts'], list):
        mask = coco.frPyObjects(mask, height, width)
    _overlay(axes, coco.decode(mask).astype(bool), colour, width, height)


def _overlay(
    axes: Axes,
    where: np.ndarray,
    colour: Colour,
    width: int,
    height: int,
) -> None:
    """Colour the pixels of a mask, (H, W), transparently."""
    layer = np.zeros((*where.shape, 4), np.float32)
    layer[where] = (*colour, 0.45)
    axes.imshow(layer, extent=(0, width, height, 0), interpolation='nearest')


def _draw_label_map(
    axes: Axes,
    picture: Picture,
    prepared: Prepared,
    colours: Colours,
) -> None:
    labels = _labels_of(picture)
    if labels is None:
        axes.set_title('label map cannot be read', fontsize=8, color='red')
        return
    layer = np.zeros((*labels.shape, 4), np.float32)
    for number, name in enumerate(prepared.collection.classes):
        layer[labels == number] = (*colours[name], 0.45)
    layer[labels == _IGNORED] = (1, 1, 1, 0.8)
    extent = (0, picture.width, picture.height, 0)
    axes.imshow(layer, extent=extent, interpolation='nearest')


def _labels_of(picture: Picture) -> np.ndarray | None:
    """The class of each pixel as training reads it, (H, W); reduced."""
    if picture.label_map is None:
        return None
    try:
        with Image.open(picture.label_map) as file:
            step = max(1, max(file.size) // _LONGEST)
            return np.asarray(file)[::step, ::step]
    # Pillow raises many kinds of errors for broken files.
    except Exception:
        return None


def _draw_classes(axes: Axes, prepared: Prepared, colours: Colours) -> None:
    """The most frequent classes in each split."""
    counts = counts_of_classes(prepared)
    names = sorted(counts, key=lambda name: -counts[name])[:_MOST_BARS]
    places = np.arange(len(names))
    done = np.zeros(len(names))
    for shade, (split, part) in enumerate(prepared.splits.items()):
        numbers = np.array([part.objects.get(name, 0) for name in names])
        axes.barh(
            places,
            numbers,
            left=done,
            color=[colours[name] for name in names],
            alpha=1 - 0.3 * shade,
            edgecolor='black',
            linewidth=0.4,
            hatch=['', '//', '..'][shade],
            label=split,
        )
        done += numbers
    axes.set_yticks(places, [_plain(name, 24) for name in names], fontsize=7)
    axes.invert_yaxis()
    more = len(counts) - len(names)
    rest = f', {more} rarer classes left out' if more else ''
    axes.set_title(f'{unit_of(prepared.collection.task)}{rest}', fontsize=9)
    axes.legend(fontsize=7)


def _draw_histogram(axes: Axes, values: np.ndarray, title: str) -> None:
    """Sides in pixels, on a logarithmic axis."""
    axes.set_title(f'{title} (side of equal area)', fontsize=9)
    axes.set_xlabel('pixels', fontsize=8)
    values = values[values > 0]
    if not len(values):
        return
    low, high = values.min(), values.max()
    edges = np.geomspace(low / 1.1, high * 1.1, 31)
    axes.hist(values, bins=list(edges), color='#4878a8')
    axes.set_xscale('log')
    # Neighbours that are too close would be printed over each other.
    number = int(np.clip(np.log(high / low) / _CLOSEST_TICKS, 1, 6))
    ticks = np.unique(np.geomspace(low, high, number).round().astype(int))
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7)
    axes.set_xticks([], minor=True)


def _draw_legend(axes: Axes, prepared: Prepared, colours: Colours) -> None:
    """Names of the colours."""
    axes.set_axis_off()
    if prepared.collection.task == CLASSIFICATION:
        return
    names: Sequence[str] = prepared.collection.classes
    patches = [
        Patch(color=colours[name], label=_plain(name, 30))
        for name in names[:_MOST_IN_LEGEND]
    ]
    patches.append(
        Patch(facecolor='white', edgecolor='black', label='ignored')
    )
    axes.legend(handles=patches, loc='center', fontsize=8, ncols=2)


def _plain(text: str, most: int) -> str:
    """A text in which matplotlib sees no formula."""
    return shorten(text, most).replace('$', r'\$')

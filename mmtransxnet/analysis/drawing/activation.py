"""The picture of class activations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from mmtransxnet.analysis.cam import Activation
from mmtransxnet.analysis.drawing.common import new_figure, save, show_picture

_BOX = 'lime'
_SCALE = Normalize(0, 1)
_COLORMAP = 'inferno'
_OPACITY = 0.65


def draw_activations(
    picture: np.ndarray,
    activations: Sequence[Activation],
    path: str | Path,
    classes: Sequence[str] | None = None,
) -> None:
    """Draw a picture and its activation maps beside each other.

    Args:
        picture: Blue, green, red ``(H, W, 3)``, uint8.
        activations: One or several of the same picture and target.
        path: Where the PNG goes.
        classes: Names of the classes; numbers are shown without.
    """
    height, width = picture.shape[:2]
    panel = 3.6 * min(1.6, max(0.6, width / height))
    figure = new_figure(panel * (len(activations) + 1) + 1.2, 4.4)
    axes = figure.subplots(1, len(activations) + 1)
    target = activations[0].target
    show_picture(axes[0], picture)
    _outline(axes[0], activations[0])
    axes[0].set_title(_caption(activations[0], classes), fontsize=9)
    for axis, found in zip(axes[1:], activations, strict=True):
        show_picture(axis, picture)
        axis.imshow(found.map, norm=_SCALE, cmap=_COLORMAP, alpha=_OPACITY)
        if target.box is not None:
            _draw_box(axis, target.box)
        axis.set_title(_method(found), fontsize=9)
    figure.suptitle('Class activation: where the model looks')
    figure.colorbar(
        ScalarMappable(_SCALE, _COLORMAP),
        ax=axes,
        label='activation relative to the strongest in the picture',
    )
    save(figure, path)


def _caption(found: Activation, classes: Sequence[str] | None) -> str:
    target = found.target
    name = str(classes[target.label] if classes else target.label)
    if target.box is not None:
        what = 'box and mask' if target.mask is not None else 'box'
        return f'detected: {name}, score {target.score:.2f}\n({what} in green)'
    if target.mask is not None:
        return (
            f'class {name}: {target.score:.1%} of the pixels\n'
            '(its outline in green)'
        )
    return f'class {name}\nprobability {target.score:.2f}'


def _method(found: Activation) -> str:
    kind = {'grad-cam': 'Grad-CAM', 'eigen-cam': 'Eigen-CAM'}[found.method]
    where = f'{kind}, stage {found.stage + 1}'
    if found.method == 'eigen-cam':
        return f'{where}\n(not specific to a class)'
    if found.target.box is not None:
        return f'{where}\nfor the {found.part}'
    return f'{where}\nfor the class'


def _outline(axis: Any, found: Activation) -> None:
    """Draw the box and the outline of the mask."""
    target = found.target
    if target.box is not None:
        _draw_box(axis, target.box)
    if target.mask is not None and 0 < target.mask.mean() < 1:
        axis.contour(target.mask, levels=[0.5], colors=_BOX, linewidths=1)


def _draw_box(axis: Any, box: np.ndarray) -> None:
    left, top, right, bottom = box
    axis.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            color=_BOX,
            linewidth=1.5,
        )
    )

"""The picture of effective receptive fields."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mmtransxnet.analysis.drawing.common import new_figure, save
from mmtransxnet.analysis.erf import SHARES, Field

_FAINTEST = 1e-4
"""Smallest contribution that has a colour of its own, of the largest."""

_SCALE = LogNorm(_FAINTEST, 1)
_COLORMAP = 'magma'
_COLORS = dict(zip(SHARES, ('white', 'cyan', 'lime', 'red'), strict=True))


def draw_fields(
    networks: Mapping[str, Sequence[Field]], path: str | Path
) -> None:
    """Draw the fields of one or several networks.

    Args:
        networks: Fields of each network by its name, a row each.
        path: Where the PNG goes.
    """
    columns = max(len(fields) for fields in networks.values())
    figure = new_figure(2.6 * columns + 1.2, 3 * len(networks) + 1)
    grid = figure.subplots(len(networks), columns, squeeze=False)
    for row, (name, fields) in zip(grid, networks.items(), strict=True):
        for axis in row[len(fields) :]:
            axis.set_axis_off()
        for axis, field in zip(row, fields, strict=False):
            _panel(axis, field)
        row[0].set_ylabel(f'{name}\npixels of the picture', linespacing=1.4)
    figure.suptitle(
        'Effective receptive field: what changes the centre of the map'
    )
    figure.colorbar(
        ScalarMappable(_SCALE, _COLORMAP),
        ax=grid,
        extend='min',
        aspect=20 * len(networks),
        label='contribution of a pixel\nrelative to the strongest (log)',
    )
    figure.legend(
        handles=[Line2D([], [], color=c) for c in _COLORS.values()],
        labels=[f'{share:.0%}' for share in _COLORS],
        title='smallest centred square that holds this share of the '
        'contribution',
        loc='outside lower center',
        ncols=len(_COLORS),
        facecolor='silver',
    )
    save(figure, path)


def _panel(axis: Any, field: Field) -> None:
    """Draw one field with its squares."""
    strongest = field.contribution.max()
    axis.imshow(
        (field.contribution / strongest).clip(min=_FAINTEST),
        norm=_SCALE,
        cmap=_COLORMAP,
    )
    height, width = field.contribution.shape
    squares = field.squares()
    for square in squares:
        half = square.side / 2
        corner = width // 2 - half, height // 2 - half
        axis.add_patch(
            Rectangle(
                corner,
                square.side,
                square.side,
                fill=False,
                color=_COLORS[square.share],
            )
        )
    half_of_it = next(s for s in squares if s.share == 0.5)
    axis.set_title(
        f'{field.stage}\n50% within {half_of_it.side} px,\n'
        f'{half_of_it.area:.2%} of the area',
        fontsize=9,
    )
    axis.tick_params(labelsize=7)

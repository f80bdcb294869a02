"""Plots as SVG in the text of a page, in the colours of its style sheet."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mmtransxnet.report.findings import Calibration, Curve
from mmtransxnet.report.history import Series

LINES = 8
"""Most lines of a plot: as many colours can be told apart."""

_POINTS = 400

# Placeholders that become variables of the style sheet.
_INK, _RULE = '#010101', '#020202'
_LINE = [f'#0{number}0{number}0f' for number in range(LINES)]
_VARIABLES = {
    _INK: 'var(--ink)',
    _RULE: 'var(--rule)',
    **{line: f'var(--line{k})' for k, line in enumerate(_LINE)},
}
_DASHES = ('-', '--', '-.', ':')

_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'report',
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.grid': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': _RULE,
    'text.color': _INK,
    'xtick.color': _INK,
    'ytick.color': _INK,
    'lines.linewidth': 1.6,
}

_DROPPED = re.compile(r'<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>',
                      re.S)  # fmt: skip
_NAMED = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass
class Plot:
    """A plot of the page.

    Attributes:
        title: Its heading.
        svg: The drawing.
        legend: Names with the number of their line.
        text: What it shows, for those who cannot see it.
    """

    title: str
    svg: Markup
    legend: list[tuple[int, str]]
    text: str


def curves_plot(title: str, series: Sequence[Series], label: str) -> Plot:
    """Values over iterations.

    Args:
        title: Heading.
        series: At most :data:`LINES`.
        label: What the values are.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes('iteration', label)
        for number, line in enumerate(series):
            stride = -(-len(line.steps) // _POINTS)
            axes.plot(
                line.steps[::stride],
                line.values[::stride],
                color=_LINE[number],
                linestyle=_DASHES[number // 4],
                marker='o' if len(line.steps) < 12 else None,
                markersize=3,
            )
        names = [line.name for line in series]
        text = '; '.join(
            f'{line.name}: {line.values[0]:.4g} at iteration '
            f'{line.steps[0]:.0f}, {line.values[-1]:.4g} at '
            f'{line.steps[-1]:.0f}'
            for line in series
        )
        return _plot(title, figure, names, text)


def precision_plot(curves: Sequence[Curve]) -> Plot:
    """Precision over recall; the first curve is the mean."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes('recall', 'precision')
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
        for number, curve in enumerate(curves):
            axes.plot(
                curve.recall,
                curve.precision,
                color=_LINE[number],
                linewidth=1.2 if number else 2.6,
                linestyle=_DASHES[number // 4],
            )
        names = [f'{curve.name} (AP {curve.ap:.3f})' for curve in curves]
        text = 'average precision: ' + ', '.join(names)
        return _plot('Precision and recall', figure, names, text)


def calibration_plot(found: Calibration) -> Plot:
    """Accuracy over confidence, with the numbers of predictions."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes('confidence', 'accuracy')
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
        axes.plot([0, 1], [0, 1], color=_INK, linestyle=':', linewidth=1)
        axes.plot(
            found.confidence, found.accuracy, color=_LINE[0], marker='o',
            markersize=4,
        )  # fmt: skip
        most = max(found.count)
        axes.bar(
            found.confidence,
            [0.25 * count / most for count in found.count],
            width=0.03,
            color=_RULE,
        )
        text = '; '.join(
            f'confidence {sure:.2f}: accuracy {right:.2f} of {count}'
            for sure, right, count in zip(
                found.confidence, found.accuracy, found.count, strict=True
            )
        )
        return _plot('Reliability diagram', figure, ['accuracy'], text)


def errors_plot(names: Sequence[str], deltas: Sequence[float]) -> Plot:
    """AP50 that each kind of errors costs."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes('AP50 gained if it were mended', '')
        places = range(len(names))
        axes.barh(places, deltas, color=_LINE[0])
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        pairs = zip(names, deltas, strict=True)
        text = ', '.join(f'{name} {delta:.3f}' for name, delta in pairs)
        return _plot('Errors by kind', figure, [], text)


def _axes(across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 3.0), layout='constrained')
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.set(xlabel=across, ylabel=up)
    return figure, axes


def _plot(title: str, figure: Figure, names: Sequence[str], text: str) -> Plot:
    legend = list(enumerate(names))
    return Plot(title, _svg(figure, title, text), legend, text)


_count = iter(range(10**9))


def _svg(figure: Figure, title: str, text: str) -> Markup:
    """The drawing as an element of a page."""
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True)
    svg = _DROPPED.sub('', file.getvalue()).strip()
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    # Names must differ between the drawings of a page.
    prefix = f'p{next(_count)}-'
    svg = _NAMED.sub(rf'\g<1>{prefix}', svg)
    head = Markup('<svg role="img" aria-label="{}: {}"').format(title, text)
    svg = re.sub(r'<svg\b', lambda _: str(head), svg, count=1)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', '', svg, count=2)
    start, end, rest = svg.partition('>')
    return Markup(f'{start}{end}<title>{escape(title)}</title>{rest}')

"""The page: one HTML file without scripts that loads nothing."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmtransxnet.report import plots
from mmtransxnet.report.classification import BINS
from mmtransxnet.report.findings import Findings
from mmtransxnet.report.history import Series, merge
from mmtransxnet.report.run import Run
from mmtransxnet.version import __version__

_TASKS = dict(
    mmpretrain='classification', mmdet='detection', mmseg='segmentation'
)

# Values that say nothing about learning.
_TIMES = ('time', 'data_time', 'memory', 'grad_norm')


def write_page(run: Run, found: Findings | None, notes: Sequence[str]) -> str:
    """The report as HTML.

    Args:
        run: The run.
        found: The evaluation; None if there is none.
        notes: Sentences at the top, such as why there is none.
    """
    environment = Environment(
        loader=PackageLoader('mmtransxnet.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters['figure'] = figure
    curves, omitted = _training(run)
    details = _details(found) if found else []
    notes = [*notes, *run.notes, *(found.notes if found else [])]
    if not curves:
        notes.append(
            'The run has recorded no curve: it ended before its first line '
            'in vis_data/scalars.json, or that file is not there.'
        )
    scope = run.config.get('default_scope', '')
    content: dict[str, Any] = dict(
        run=run,
        found=found,
        notes=notes,
        curves=curves,
        omitted=omitted,
        details=details,
        details_title=_title(found),
        error_rows=[
            [kind.name, kind.count, kind.delta, kind.meaning]
            for kind in (found.errors if found else [])
        ],
        bins=BINS,
        boxes=scope == 'mmdet',
        size=found.pictures if found else 0,
        task=_TASKS.get(scope, scope or 'unknown task'),
        config_text=run.config.pretty_text,
        version=__version__,
    )
    content['sections'] = _sections(content)
    return environment.get_template('page.html').render(content)


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchors and titles of the parts that the page has."""
    found = content['found'] or Findings()
    groups = {example.group for example in found.examples}
    parts = (
        ('metrics', 'Result', found.metrics),
        ('curves', 'Training', content['curves']),
        ('classes', 'Classes', found.rows),
        ('details', content['details_title'], content['details']),
        ('confusion', 'Confusion matrix', found.confusion),
        ('worst', 'Worst pictures', 'worst' in groups),
        ('best', 'Best pictures', 'best' in groups),
        ('run', 'The run', True),
    )
    return [(key, title) for key, title, there in parts if there]


def figure(value: Any) -> str:
    """A value of a table: whole numbers as they are, others short."""
    if value is None:
        return '\N{EN DASH}'
    if isinstance(value, int):
        return f'{value:,}'
    if isinstance(value, float):
        return f'{value:.1f}' if abs(value) >= 10 else f'{value:.3f}'
    return str(value)


def _title(found: Findings | None) -> str:
    """Heading of the plots of the evaluation."""
    if found and found.errors:
        return 'Precision, recall and errors'
    return 'Precision, recall and calibration'


def _details(found: Findings) -> list[plots.Plot]:
    """Plots of the evaluation."""
    drawn = []
    if found.curves:
        drawn.append(plots.precision_plot(found.curves))
    if found.calibration:
        drawn.append(plots.calibration_plot(found.calibration))
    if found.errors:
        drawn.append(
            plots.errors_plot(
                [kind.name for kind in found.errors],
                [kind.delta for kind in found.errors],
            )
        )
    return drawn


def _training(run: Run) -> tuple[list[plots.Plot], list[str]]:
    """Plots of the training, and what is left out of them."""
    curves = merge(run.starts)
    groups: dict[str, list[Series]] = {}
    for name, series in curves['train'].items():
        # Where both are logged, they are equal or differ by a factor.
        if name in _TIMES or (name == 'base_lr' and 'lr' in curves['train']):
            continue
        if name in ('lr', 'base_lr') or name.endswith('/lr'):
            group = 'Learning rate'
        elif 'loss' in name:
            group = 'Losses'
        else:
            group = 'Figures of training batches'
        groups.setdefault(group, []).append(series)
    for name, series in curves['val'].items():
        # COCO's -1: the data has no object of that size.
        if name in _TIMES or set(series.values) == {-1.0}:
            continue
        percent = max(map(abs, series.values)) > 1
        group = 'Validation, above 1' if percent else 'Validation'
        groups.setdefault(group, []).append(series)
    drawn, omitted = [], []
    for title in sorted(groups, key=_order):
        lines = sorted(groups[title], key=_rank)
        if 'Validation' in title and len(lines[0].steps) < 2:
            omitted.append(
                f'{title}, once only: {", ".join(map(_last, lines))}.'
            )
            continue
        rest = [one.name for one in lines[plots.LINES :]]
        if rest:
            omitted.append(f'{title}, not drawn: {", ".join(rest)}.')
        label = 'validation' if 'Validation' in title else title.lower()
        drawn.append(plots.curves_plot(title, lines[: plots.LINES], label))
    return drawn, omitted


def _rank(series: Series) -> tuple[bool, bool]:
    """The whole loss first, COCO's figures by object size last."""
    return series.name.endswith(('_s', '_m', '_l')), series.name != 'loss'


def _last(series: Series) -> str:
    return f'{series.name} {figure(series.values[-1])}'


def _order(title: str) -> tuple[bool, bool, str]:
    """Losses first, then validation."""
    return title != 'Losses', 'Validation' not in title, title

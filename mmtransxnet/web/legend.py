"""What is written beside a drawing, as HTML."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from mmtransxnet.deploy import runtime
from mmtransxnet.web.models import Prediction

_MOST = 12
"""Classes that are listed."""

CSS = """
.legend ul { list-style: none; margin: 0.4em 0 0; padding: 0;
  display: flex; flex-wrap: wrap; gap: 0.25em 1.2em; }
.legend li { display: flex; align-items: center; gap: 0.45em; margin: 0;
  overflow-wrap: anywhere; }
.legend i { width: 0.9em; height: 0.9em; border-radius: 2px; flex: none;
  border: 1px solid rgb(128 128 128 / 60%); }
.legend b { font-weight: 600; }
.legend.problem { border-left: 4px solid #b91c1c; padding-left: 0.7em;
  overflow-wrap: anywhere; }
.shown img { width: 100%; height: 100%; object-fit: contain; }
"""


def legend(prediction: Prediction, score: float) -> str:
    """Describe a prediction.

    Args:
        prediction: The prediction.
        score: Minimum score of objects.

    Returns:
        A line with the time and the size, then the classes: of a picture the
        most likely ones with their probability, of objects their number, of
        pixels their share.
    """
    result = prediction.above(score)
    height, width = result.size
    line = (
        f'<b>{escape(_summary(prediction, score))}</b> &middot; predicted in '
        f'{prediction.seconds:.2f} s &middot; {width} x {height} pixels'
    )
    names, palette = prediction.model.classes, prediction.model.palette
    entries = ''.join(
        f'<li>{_swatch(result, palette[label])}{escape(names[label])}: '
        f'{value}</li>'
        for label, value in _values(result)
    )
    return f'<div class="legend">{line}<ul>{entries}</ul></div>'


def problem(message: str) -> str:
    """Say why there is no prediction."""
    return f'<div class="legend problem" role="alert">{escape(message)}</div>'


def _summary(prediction: Prediction, score: float) -> str:
    result = prediction.above(score)
    if isinstance(result, runtime.Detections):
        found = len(result)
        noun = 'object' if found == 1 else 'objects'
        return f'{found} {noun} of {score:.2f} and more'
    if isinstance(result, runtime.Classification):
        return f'class {prediction.model.classes[result.label]}'
    count = len(np.unique(result.labels))
    return '1 class' if count == 1 else f'{count} classes'


def _values(result: runtime.Result) -> list[tuple[int, str]]:
    """Classes with what is said of each, the largest first."""
    if isinstance(result, runtime.Classification):
        order = np.argsort(-result.scores)[:5]
        return [(int(i), f'{result.scores[i]:.1%}') for i in order]
    counts = Counter(result.labels.ravel().tolist()).most_common(_MOST)
    if isinstance(result, runtime.Detections):
        return [(label, str(count)) for label, count in counts]
    return [(i, f'{n / result.labels.size:.1%}') for i, n in counts]


def _swatch(result: runtime.Result, colour: Sequence[int]) -> str:
    """A sample of the colour that the drawing uses for a class."""
    if isinstance(result, runtime.Classification):
        return ''
    red, green, blue = (int(value) for value in colour)
    return f'<i style="background: rgb({red} {green} {blue})"></i>'

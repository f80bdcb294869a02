"""Whether an exported file computes what PyTorch computes.

Both get the same inputs: pictures of three sizes, one and two at a time,
without an object and with many. What is compared depends on the names of the
outputs only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmtransxnet.deploy.formats import Arrays, Runner
from mmtransxnet.deploy.graphs import DeployForm
from mmtransxnet.utils.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What may differ.

    Attributes:
        values: Largest absolute difference of scores and masks, and of boxes
            as a share of the picture's longer side.
        labels: Smallest share of pixels whose label is equal.
    """

    values: float
    labels: float


LIMITS = {
    'fp32': Limits(values=1e-4, labels=0.9999),
    # Weights have eleven bits of mantissa.
    'fp16': Limits(values=1e-2, labels=0.995),
}
"""By precision; int8 is judged by its metric instead."""

SIZES = ((64, 64), (96, 160), (130, 75))
"""Heights and widths in pixels, where the graph takes any."""


@dataclass
class Parity:
    """The result of a comparison.

    Attributes:
        compared: The cases, for example ``'2 x 96 x 160, many objects'``.
        differences: Largest difference of each output.
    """

    compared: list[str] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)

    def add(self, output: str, difference: float) -> None:
        """Record a difference."""
        before = self.differences.get(output, 0.0)
        self.differences[output] = max(before, difference)


@dataclass
class Case:
    """Inputs, and what PyTorch computes from them.

    Attributes:
        name: For example ``'2 x 96 x 160, many objects'``.
        inputs: By name.
        expected: Outputs by name.
    """

    name: str
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def expected_cases(
    reference: Callable[..., tuple[torch.Tensor, ...]], form: DeployForm
) -> list[Case]:
    """All comparisons.

    Args:
        reference: Takes the inputs of the deploy form and returns its
            outputs, computed by PyTorch.
        form: The deploy form.
    """
    found = []
    for name, inputs in cases(form):
        with torch.no_grad():
            tensors = [torch.from_numpy(inputs[n]) for n in form.input_names]
            outputs = reference(*tensors)
        expected = {
            key: value.numpy()
            for key, value in zip(form.output_names, outputs, strict=True)
        }
        found.append(Case(name, inputs, expected))
    return found


def check_parity(
    expected: Sequence[Case], run: Runner, limits: Limits, name: str
) -> Parity:
    """Compare a file with PyTorch.

    Args:
        expected: The comparisons.
        run: Runs the file.
        limits: What may differ.
        name: Name of the format, for messages.

    Returns:
        What was compared and the largest differences.

    Raises:
        UserError: An output differs; names it and the size.
    """
    parity = Parity()
    for case in expected:
        detects = 'count' in case.expected
        compare = compare_detections if detects else compare_maps
        got = run(case.inputs)
        for problem in compare(
            case.expected, got, case.inputs, limits, parity
        ):
            raise UserError(
                f'{name} differs from PyTorch at {case.name}: {problem}. '
                'Nothing was written; please report it with the config'
            )
        parity.compared.append(case.name)
    return parity


def cases(form: DeployForm) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Names and inputs of the comparisons."""
    sizes = SIZES if form.size is None else (form.size,)
    batches = (1, 2) if form.batch is None else (form.batch,)
    for height, width in sizes:
        for batch in batches:
            for content, draw in _PICTURES.items():
                pictures = np.stack(
                    [draw(height, width, seed) for seed in range(batch)]
                )
                inputs = form.inputs_of(pictures)
                if 'sizes' in inputs:
                    # The first of several pictures is smaller: padded.
                    inputs['sizes'][: batch - 1] -= 9
                yield f'{batch} x {height} x {width}, {content}', inputs


def _empty(height: int, width: int, seed: int) -> np.ndarray:
    """A picture without an object: weak noise.

    In a single colour, the scores of most positions would be equal up to
    rounding, which then decides what a detector ranks first.
    """
    draw = np.random.default_rng(seed)
    picture = draw.integers(0, 16, (height, width, 3)) + 40 + 30 * seed
    return picture.astype(np.uint8)


def _crowded(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with many objects: rectangles and noise."""
    draw = np.random.default_rng(seed)
    picture = draw.integers(0, 60, (height, width, 3))
    for _ in range(40):
        top, left = draw.integers(0, (height - 8, width - 8))
        tall, wide = draw.integers(4, (height // 2, width // 2))
        colour = draw.integers(0, 196, 3)
        picture[top : top + tall, left : left + wide] = colour
    return picture.astype(np.uint8)


_PICTURES = {'no object': _empty, 'many objects': _crowded}


def compare_maps(
    expected: Arrays,
    got: Arrays,
    inputs: Arrays,
    limits: Limits,
    parity: Parity,
) -> Iterator[str]:
    """Compare outputs that have a fixed order; yield what differs."""
    for name, value in expected.items():
        if value.shape != got[name].shape:
            yield (
                f'output {name} has the shape {got[name].shape} instead of '
                f'{value.shape}'
            )
        elif np.issubdtype(value.dtype, np.integer):
            equal = float((value == got[name]).mean())
            parity.add(name, 1 - equal)
            if equal < limits.labels:
                yield (
                    f'output {name} is equal in {equal:.3%} of the pixels, '
                    f'expected at least {limits.labels:.2%}'
                )
        else:
            yield from _compare_values(name, value, got[name], limits, parity)


def _compare_values(
    name: str,
    expected: np.ndarray,
    got: np.ndarray,
    limits: Limits,
    parity: Parity,
    unit: float = 1.0,
) -> Iterator[str]:
    """Compare floats; the limit is in this unit."""
    difference = float(np.abs(expected - got).max(initial=0)) / unit
    parity.add(name, difference)
    # NaN is never below a limit.
    if not difference <= limits.values:
        yield (
            f'output {name} differs by up to {difference:.2g}, expected at '
            f'most {limits.values:g}'
        )


def compare_detections(
    expected: Arrays,
    got: Arrays,
    inputs: Arrays,
    limits: Limits,
    parity: Parity,
) -> Iterator[str]:
    """Match detections one to one; yield what differs."""
    side = float(max(inputs['images'].shape[1:3]))
    for i in range(len(expected['count'])):
        count, other = int(expected['count'][i]), int(got['count'][i])
        if count != other:
            yield f'image {i} has {other} detections instead of {count}'
            continue
        order = _matched(expected, got, i, count, limits, side)
        if order is None:
            yield f'detections of image {i} have no match of the same label'
            continue
        for name in ('boxes', 'scores', 'masks'):
            if name in expected:
                yield from _compare_values(
                    name,
                    expected[name][i][:count],
                    got[name][i][order],
                    limits,
                    parity,
                    side if name == 'boxes' else 1.0,
                )


def _matched(
    expected: Any,
    got: Any,
    i: int,
    count: int,
    limits: Limits,
    side: float,
) -> list[int] | None:
    """Which detection belongs to each expected one; None if any has none.

    Equal scores may come in another order, so labels and boxes decide.
    """
    free = list(range(count))
    order = []
    for n in range(count):
        same = [
            m for m in free if got['labels'][i][m] == expected['labels'][i][n]
        ]
        if not same:
            return None
        box = expected['boxes'][i][n]
        score = expected['scores'][i][n]
        best = min(
            same,
            key=lambda m: (
                np.abs(got['boxes'][i][m] - box).max() / side
                + abs(got['scores'][i][m] - score)
            ),
        )
        free.remove(best)
        order.append(best)
    return order

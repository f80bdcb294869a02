"""The files of docs/benchmarks/experiments, and their tables."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtransxnet.benchmark.experiments.claims import (
    ERF_SHARE,
    FULL,
    NETWORKS,
    costs_of,
)
from mmtransxnet.benchmark.experiments.own_data import METRICS
from mmtransxnet.benchmark.experiments.small_data import (
    COUNTS,
    PRETRAINING,
    RECIPES,
    TASKS,
)
from mmtransxnet.benchmark.experiments.trials import Record, read_records
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

FOLDER = 'experiments'
"""Of docs/benchmarks."""

NOT_MEASURED = 'not measured'

Made = Mapping[str, Any]
"""With what was measured: versions and machine."""


def write_claims(folder: Path, path: Path, made: Made) -> None:
    """Gather what was measured of the networks.

    Args:
        folder: Folder of tools/benchmark/claims.py.
        path: The file to write.
        made: Versions and machine.
    """
    names = ('trials', 'erf', 'speed')
    _write(
        path,
        dict(
            made=dict(made),
            costs={name: costs_of(name) for name in NETWORKS},
            **{n: read_records(folder / f'{n}.jsonl') for n in names},
        ),
    )


def write_small_data(folder: Path, path: Path, made: Made) -> None:
    """Gather what was measured of the recipes; see :func:`write_claims`."""
    trials = read_records(folder / 'trials.jsonl')
    _write(path, dict(made=dict(made), trials=trials))


def write_own_data(folder: Path, path: Path, made: Made) -> None:
    """Gather what was measured of each kind; see :func:`write_claims`."""
    trials = read_records(folder / 'trials.jsonl')
    _write(path, dict(made=dict(made), trials=trials))


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1) + '\n'
    write_safely(path, text.encode(), 'start again')


def claims_table(folder: Path) -> str:
    """The table of the networks, as markdown.

    Args:
        folder: docs/benchmarks.

    Raises:
        UserError: The file is not what tools/benchmark/claims.py writes.
    """
    return _table_of(folder / FOLDER / 'claims.json', _claims)


def small_data_table(folder: Path) -> str:
    """The tables of the recipes, one for each task; see above."""
    return _table_of(folder / FOLDER / 'small_data.json', _small_data)


def own_data_table(folder: Path) -> str:
    """The table of the kinds of own data; see above."""
    return _table_of(folder / FOLDER / 'own_data.json', _own_data)


def _table_of(path: Path, table: Callable[[Mapping[str, Any]], str]) -> str:
    if not path.exists():
        return 'Not measured yet.\n'
    try:
        content = json.loads(path.read_text())
        made = content['made']
        title = ', '.join(f'{name} {value}' for name, value in made.items())
        return f'Measured with {title}.\n\n{table(content)}'
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a file of tools/benchmark '
            f'({type(error).__name__}: {error}); measure again or remove it'
        ) from error


def _claims(content: Mapping[str, Any]) -> str:
    accuracies = _by_network(content['trials'], 'accuracy/top1')
    areas = _by_network(content['erf'], 'area')
    seconds = _by_network(content['speed'], 'seconds')
    rows = [
        [
            'network',
            f'top-1, {_seeds(accuracies)} seeds',
            'minus full',
            'beyond the spread',
            'parameters',
            'multiply-adds',
            f'ERF area, {ERF_SHARE:.0%}',
            'speed of T',
        ]
    ]
    for name, network in NETWORKS.items():
        costs = content['costs'][name]
        rows.append(
            [
                network.title,
                spread(accuracies[name]),
                *difference(accuracies[name], accuracies[FULL]),
                f'{costs["parameters"] / 1e3:.0f} K',
                f'{costs["macs"] / 1e6:.1f} M',
                _percent(areas.get(name)),
                _speed(seconds.get(name), seconds.get(FULL)),
            ]
        )
    return _markdown(rows)


def _by_network(
    records: Sequence[Record], value: str
) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for record in records:
        name = record['trial']['network']
        values.setdefault(name, []).append(record['result'][value])
    return values


def _seeds(values: Mapping[str, Sequence[float]]) -> str:
    """Number of seeds, or its range where networks have different ones."""
    counts = sorted({len(of_network) for of_network in values.values()})
    return ' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))


def spread(values: Sequence[float], form: str = '.1f') -> str:
    """Mean and standard deviation, and of how many where not obvious."""
    mean = format(statistics.mean(values), form)
    if len(values) == 1:
        return f'{mean} (one run)'
    return f'{mean} ± {statistics.stdev(values):{form}}'


def difference(
    values: Sequence[float], reference: Sequence[float]
) -> tuple[str, str]:
    """Difference of the means, and whether it exceeds its spread.

    The spread is the standard deviation of the difference of two single runs:
    the root of the sum of both variances.
    """
    if values is reference:
        return '', ''
    delta = statistics.mean(values) - statistics.mean(reference)
    if min(len(values), len(reference)) == 1:
        return f'{delta:+.1f}', 'one run'
    limit = statistics.variance(values) + statistics.variance(reference)
    return f'{delta:+.1f}', 'yes' if abs(delta) > limit**0.5 else 'no'


def _percent(values: Sequence[float] | None) -> str:
    if not values:
        return NOT_MEASURED
    return f'{spread([100 * value for value in values])} %'


def _speed(
    seconds: Sequence[float] | None, full: Sequence[float] | None
) -> str:
    """The range of the ratios of the rounds; more than 1x is faster."""
    if not seconds or not full:
        return NOT_MEASURED
    ratios = [f / s for f, s in zip(full, seconds, strict=False)]
    return f'{min(ratios):.2f}x to {max(ratios):.2f}x'


def _small_data(content: Mapping[str, Any]) -> str:
    parts = []
    for name, task in TASKS.items():
        of_task = [r for r in content['trials'] if r['trial']['task'] == name]
        if not of_task:
            parts.append(f'**{task.title}**: {NOT_MEASURED}.\n')
            continue
        rows = [
            [task.metric_title, *(f'{count} pictures' for count in COUNTS)]
        ]
        for recipe in task.recipes:
            cells = [_cell(of_task, recipe, n, task) for n in COUNTS]
            rows.append([RECIPES[recipe].title, *cells])
        seeds = {r['trial']['seed'] for r in of_task if 'seed' in r['trial']}
        parts.append(
            f'**{task.title}**, {len(seeds)} seeds; {task.metric_title} on '
            'the digits before: '
            f'{_values(of_task, task, recipe=PRETRAINING)[0]:.1f}\n\n'
            + _markdown(rows)
        )
    return '\n'.join(parts)


def _cell(
    records: Sequence[Record], recipe: str, count: int, task: Any
) -> str:
    values = _values(records, task, recipe=recipe, pictures=count)
    return spread(values) if values else NOT_MEASURED


def _values(records: Sequence[Record], task: Any, **of: Any) -> list[float]:
    """The metric of the trials with some settings, 0 to 100."""
    return [
        # COCO's metric is left out where nothing was found.
        task.factor * record['result'].get(task.metric, 0.0)
        for record in records
        if of.items() <= record['trial'].items()
    ]


def _own_data(content: Mapping[str, Any]) -> str:
    rows = [
        [
            *('kind', 'task', 'algorithm', 'found', 'lost', 'config lines'),
            *('iterations', 'metric after training'),
        ]
    ]
    for record in content['trials']:
        result = record['result']
        title, factor = METRICS[result['metric']]
        rows.append(
            [
                record['trial']['kind'].replace('_', ' '),
                *(result[name] for name in ('task', 'algorithm')),
                *(result[name] for name in ('found', 'lost')),
                *(str(result[name]) for name in ('lines', 'iterations')),
                f'{title} {factor * result["value"]:.1f}',
            ]
        )
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ['---'] * len(head), *body]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)

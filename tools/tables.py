"""Write the tables of the READMEs and docs from metafiles and benchmarks.

A table is between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a folder
of configs/, `digits`, or a table of docs/benchmarks (`speed`,
`speed_summary`, `speed_details`, `formats`, `claims`, `own_data`,
`small_data`).
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from mmtransxnet.benchmark.experiments.results import (
    claims_table,
    own_data_table,
    small_data_table,
)
from mmtransxnet.benchmark.formats import formats_table
from mmtransxnet.benchmark.speed.records import read_records
from mmtransxnet.benchmark.speed.tables import SPEED_TABLES
from mmtransxnet.utils.errors import report_user_errors

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r'(<!-- table: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)
PAGES = [
    'README.md',
    'docs/performance.md',
    'docs/export.md',
    'docs/claims.md',
    'docs/own_data.md',
    'docs/small_data.md',
    *(
        f'configs/{task}/README.md'
        for task in ('classification', 'detection', 'segmentation')
    ),
]

FILE_TABLES = {
    'formats': formats_table,
    'claims': claims_table,
    'own_data': own_data_table,
    'small_data': small_data_table,
}


def models_of(name: str) -> list[dict[str, Any]]:
    """The models of a metafile."""
    path = f'configs/{name}/metafile.yml'
    if name == 'digits':
        path = 'configs/metafile_digits.yml'
    return yaml.safe_load((ROOT / path).read_text())['Models']


def metrics_of(model: dict[str, Any]) -> dict[str, float]:
    """All results of a model by name."""
    return {
        name: value
        for result in model.get('Results', [])
        for name, value in result['Metrics'].items()
    }


def table(name: str, page: Path) -> str:
    """A table by name, with links from a page."""
    if name in SPEED_TABLES:
        return SPEED_TABLES[name](read_records(ROOT / 'docs/benchmarks'))
    if name in FILE_TABLES:
        return FILE_TABLES[name](ROOT / 'docs/benchmarks')
    return table_of_models(name, page)


def table_of_models(name: str, page: Path) -> str:
    """A metafile as a markdown table, with links from a page."""
    models = models_of(name)
    metrics = list(
        dict.fromkeys(m for model in models for m in metrics_of(model))
    )
    digits = name == 'digits'
    columns = ['config', *metrics]
    columns += ['training'] if digits else ['params', 'GMACs', 'at', 'weights']
    rows = [columns, ['---'] * len(columns)]
    for model in models:
        results = metrics_of(model)
        row = [link(model['Name'], model['Config'], page)]
        empty = '' if results else 'not published'
        row += [str(results.get(metric, empty)) for metric in metrics]
        rows.append(row + (minutes(model) if digits else costs(model)))
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def link(name: str, target: str, page: Path) -> str:
    """A link to a file of the repository."""
    return f'[{name}]({os.path.relpath(ROOT / target, page.parent)})'


def minutes(model: dict[str, Any]) -> list[str]:
    """The wall time of a training."""
    return [f'{model["Metadata"]["Training Minutes"]} min']


def costs(model: dict[str, Any]) -> list[str]:
    """Parameters, multiply-adds, input size and weights of a model."""
    metadata = model['Metadata']
    weights = model.get('Weights')
    return [
        f'{metadata["Parameters"] / 1e6:.1f} M',
        f'{metadata["FLOPs"] / 1e9:.1f}',
        metadata['Input Size'],
        f'[authors]({weights})' if weights else '',
    ]


def main() -> None:
    """Rewrite the pages, or report stale ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--check', action='store_true', help='change nothing, fail if stale'
    )
    args = parser.parse_args()
    with report_user_errors():
        stale = rewrite(args.check)
    if stale and args.check:
        sys.exit(f'stale tables, run `make tables`: {", ".join(stale)}')
    print('written:' if stale else 'up to date', *stale)


def rewrite(check: bool) -> list[str]:
    """Write the pages that are stale, unless they are only checked."""
    stale = []
    for page in (ROOT / name for name in PAGES):
        text = page.read_text()
        new = MARKED.sub(
            lambda m, page=page: m[1] + '\n' + table(m[2], page) + '\n' + m[3],
            text,
        )
        if new != text:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new)
    return stale


if __name__ == '__main__':
    main()

"""Check the requirements of all evaluations before the first one."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.benchmark.rows import Row
from mmtransxnet.engine.checks.folders import inspect_layout
from mmtransxnet.engine.checks.preflight import check_data
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.engine.config.options import OptionsAction
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import read_checkpoint


@dataclass(frozen=True)
class Checked:
    """A row, and whether it can be evaluated.

    Attributes:
        row: The row.
        checkpoint: File, URL or name of the weights.
        identity: Hash that changes with the config and the weights.
        state: ``'ready'``, or why not: ``'nothing published'``, ``'no
            config'``, ``'no data'``, ``'no weights'``.
        reason: The remedy.
    """

    row: Row
    checkpoint: str = ''
    identity: str = ''
    state: str = 'ready'
    reason: str = ''


def check_rows(
    rows: Sequence[Row], folder: Path | None, options: Sequence[str]
) -> list[Checked]:
    """Look at configs, data and weights.

    Args:
        rows: The rows.
        folder: Folder of checkpoints that take precedence over the published
            weights: ``NAME.pth``, a published file's name, or a work directory
            ``NAME/``.
        options: ``--cfg-options`` of all runs.
    """
    data_problems: dict[str, str] = {}
    return [_check(row, folder, options, data_problems) for row in rows]


def _check(
    row: Row,
    folder: Path | None,
    options: Sequence[str],
    data_problems: dict[str, str],
) -> Checked:
    if not row.figures:
        return Checked(row, state='nothing published')
    try:
        config = load_config(row.config, parse_options(options))
    except UserError as error:
        return Checked(row, state='no config', reason=str(error))
    problem = _data_problem(config, data_problems)
    if problem:
        return Checked(row, state='no data', reason=problem)
    checkpoint = _find_checkpoint(row, folder)
    if checkpoint is None:
        where = f'in {folder} or ' if folder else ''
        return Checked(
            row,
            state='no weights',
            reason=f'none {where}named by the metafile; see --checkpoints',
        )
    try:
        _open_checkpoint(checkpoint)
    except ValueError as error:
        return Checked(row, checkpoint, state='no weights', reason=str(error))
    return Checked(row, checkpoint, _identity(config, checkpoint))


def parse_options(options: Sequence[str]) -> dict[str, Any] | None:
    """``--cfg-options`` as the tools read them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    given = ['--cfg-options', *options] if options else []
    return parser.parse_args(given).cfg_options


def _data_problem(config: Config, cache: dict[str, str]) -> str:
    """Describe what is wrong with the data; each set is checked once.

    A part of a published set can be evaluated, but not compared.
    """
    dataset = dict(config.test_dataloader.dataset)
    dataset.pop('pipeline', None)
    key = repr((dataset, config.get('test_evaluator')))
    if key not in cache:
        try:
            check_data(config, ['test'])
            reports = inspect_layout(config, ['test'])
            cache[key] = '; '.join(
                n for report in reports for n in report.notes
            )
        except UserError as error:
            cache[key] = str(error)
    return cache[key]


def _find_checkpoint(row: Row, folder: Path | None) -> str | None:
    """The checkpoint of a row, from the folder or the published one."""
    if folder:
        names = [f'{row.name}.pth']
        if row.weights:
            names.append(Path(row.weights).name)
        for path in (folder / name for name in names):
            if path.is_file():
                return str(path)
        last = folder / row.name / 'last_checkpoint'
        if last.is_file():
            return last.read_text().strip()
    return row.weights


def _open_checkpoint(checkpoint: str) -> None:
    """Open the weights, downloading them if needed."""
    read_checkpoint(path_of(checkpoint))


def _identity(config: Config, checkpoint: str) -> str:
    weights = checkpoint
    if '://' not in checkpoint:
        status = Path(checkpoint).stat()
        weights += f' {status.st_size} {status.st_mtime_ns}'
    text = f'{config.pretty_text}\n{weights}'
    return hashlib.sha256(text.encode()).hexdigest()[:16]

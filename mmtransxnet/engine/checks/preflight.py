"""Checks that take seconds, before a run that takes hours."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import METRICS, DefaultScope
from torch import nn

from mmtransxnet.engine.checks.dataset_types import (
    class_of,
    library_of,
    reads_local_files,
)
from mmtransxnet.engine.checks.folders import inspect_layout
from mmtransxnet.utils.build import build_model
from mmtransxnet.utils.errors import CheckpointError, UserError
from mmtransxnet.utils.text import shorten
from mmtransxnet.weights.loading import match_file
from mmtransxnet.weights.matching import match_weights
from mmtransxnet.weights.mmengine_loaders import LOCATED, path_of
from mmtransxnet.weights.reader import (
    cache_checkpoint,
    read_checkpoint,
    state_dict_of,
)


def check_data(config: Config, splits: Sequence[str]) -> None:
    """Check that the data of a run is complete.

    Args:
        config: The run.
        splits: Which of ``'train'``, ``'val'``, ``'test'`` it uses.

    Raises:
        UserError: The data is incomplete; the message includes the config's
            ``data_remedy``. Never with ``check_data=False`` in the config
            (--no-check).
    """
    if not config.get('check_data', True):
        return
    policy = (config.get('bad_data') or {}).get('policy')
    problems, notes, samples = [], [], []
    for report in inspect_layout(config, splits):
        problems += report.problems
        notes += report.notes
        if report.unchecked:
            notes.append(
                f'{report.split} data, not checked: {report.unchecked}'
            )
        if report.split == 'train':  # an evaluation never skips samples
            samples += report.samples
    if policy == 'skip':  # counted during the run
        problems = [p for p in problems if p not in samples]
        notes += samples
    for note in notes:
        print_log(note, 'current', logging.WARNING)
    problems += [
        f'{path} does not exist'
        for path in _annotations_of_metrics(config, splits)
        if not os.path.exists(path)
    ]
    if problems:
        remedy = config.get('data_remedy', 'fix data_root in the config')
        summary = '; '.join(dict.fromkeys(problems))
        if policy == 'error' and samples:
            remedy += (
                '. To train without single bad files: --cfg-options '
                'bad_data.policy=skip'
            )
        raise UserError(
            f'the data is not as required: {summary}. {remedy}. If this is '
            'intended: --no-check'
        )


def _annotations_of_metrics(
    config: Config, splits: Sequence[str]
) -> Iterator[str]:
    """Local annotation files that mmdet's metrics read."""
    for split in splits:
        metrics = config.get(f'{split}_evaluator')
        if not isinstance(metrics, list | tuple):
            metrics = [metrics]
        for metric in metrics:
            path = metric.get('ann_file') if metric else None
            if not isinstance(path, str) or '://' in path:
                continue
            with DefaultScope.overwrite_default_scope(
                config.get('default_scope', 'mmengine')
            ):
                metric_type = class_of(metric, METRICS)
            # Other metrics may read other files.
            if library_of(metric_type) == 'mmdet' and reads_local_files(
                metric.get('backend_args')
            ):
                yield path


def check_folder(path: str | Path, flag: str) -> None:
    """Create a folder and check that it is writable.

    Args:
        path: The folder.
        flag: Its flag on the command line, for the message.

    Raises:
        UserError: It is a file, or cannot be written to.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    # ValueError: characters that no file system supports.
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(
            f'{flag} {shorten(str(path))}: cannot write to this folder '
            f'({reason})'
        ) from error


def check_init_weights(config: Config) -> None:
    """Check that the backbone's pretrained weights exist and match it.

    Published weights that are not on this machine are downloaded.

    Raises:
        UserError: They do not exist, cannot be downloaded or read, or do not
            match.
    """
    backbone = config.model.get('backbone', {})
    init = backbone.get('init_cfg') or {}
    source = init.get('checkpoint', '') if isinstance(init, Mapping) else ''
    if not source:
        return
    scratch = 'start from scratch with --cfg-options'
    scratch = f'{scratch} model.backbone.init_cfg=None'
    if '://' not in source and not Path(source).is_file():
        raise UserError(
            f'model.backbone.init_cfg.checkpoint: {source} is not a file; '
            f'train or fetch it first, or {scratch}'
        )
    if backbone.get('type') != 'TransXNet':
        return
    described = dict(model=backbone, default_scope=config.get('default_scope'))
    model = build_model(Config(described), 'meta')
    try:
        match_file(model, source, init.get('prefix'), init.get('allow', ()))
    except CheckpointError as error:
        raise UserError(
            f'model.backbone.init_cfg: {error}. Or {scratch}'
        ) from error


def check_checkpoint(
    path: str, model: nn.Module, config_name: str, allow: Sequence[str] = ()
) -> None:
    """Check that a checkpoint file matches a model.

    Args:
        path: The file, its address or the name of published weights, which are
            downloaded. Other schemes (``s3://``) are left to mmengine.
        model: The model, wrapped or not.
        config_name: What the model was built from, for the message.
        allow: Names, or patterns such as ``head.fc.*``, that need not match.

    Raises:
        CheckpointError: The file cannot be read, or the weights do not match.
    """
    if '://' in path and not path.startswith(LOCATED):
        return
    expected = {
        name.removeprefix('module.'): value
        for name, value in model.state_dict().items()
    }
    content = read_checkpoint(path_of(path))
    # The Runner loads it next.
    cache_checkpoint(path_of(path), content)
    match = match_weights(state_dict_of(content), expected, allow)
    match.require(path, f'the model of {config_name}')
    for line in match.report():
        print_log(f'{path}: {line}', 'current')

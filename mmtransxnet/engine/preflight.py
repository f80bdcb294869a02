"""Checks that cost seconds, before a run that costs hours."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmtransxnet.checkpoint import misfits, read_checkpoint, state_dict_of
from mmtransxnet.engine.errors import UserError


def check_data(config: Config, splits: Sequence[str]) -> None:
    """Check that the files and folders a run reads are there.

    Args:
        config: The run.
        splits: Which of ``'train'``, ``'val'``, ``'test'`` it uses.

    Raises:
        UserError: Names what is missing and the remedy, which the config
            states as ``data_remedy``.
    """
    missing: dict[str, None] = {}
    for split in splits:
        loader = config.get(f'{split}_dataloader') or {}
        for dataset in _datasets(loader.get('dataset')):
            missing.update(dict.fromkeys(_missing_paths(dataset)))
        for metric in _as_list(config.get(f'{split}_evaluator')):
            missing.update(dict.fromkeys(_missing_paths(metric)))
    if missing:
        remedy = config.get('data_remedy', 'mend data_root in the config')
        raise UserError(f'no data at {", ".join(missing)}; {remedy}')


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """The data sets inside any wrappers (repeat, concatenate, ...)."""
    if not isinstance(dataset, Mapping):
        return
    inner = _as_list(dataset.get('dataset')) + _as_list(
        dataset.get('datasets')
    )
    if inner == [None, None]:
        yield dataset
    for one in inner:
        yield from _datasets(one)


def _missing_paths(reader: Any) -> list[str]:
    """Paths that a data set or a metric names and that are not there."""
    if not isinstance(reader, Mapping):
        return []
    root = Path(reader.get('data_root') or '')
    if not root.is_dir():
        return [str(root)]
    prefix = reader.get('data_prefix') or {}
    names = list(prefix.values() if isinstance(prefix, Mapping) else [prefix])
    names.append(reader.get('ann_file'))
    paths = [root / name for name in names if name]
    return [str(path) for path in paths if not path.exists()]


def check_init_weights(config: Config) -> None:
    """Check that the file the backbone starts from is there.

    Raises:
        UserError: It is not.
    """
    init = config.model.get('backbone', {}).get('init_cfg') or {}
    path = init.get('checkpoint', '') if isinstance(init, Mapping) else ''
    if path and '://' not in path and not Path(path).is_file():
        raise UserError(
            f'model.backbone.init_cfg.checkpoint: {path} is not a file; '
            'train or fetch it first, or start from scratch with '
            '--cfg-options model.backbone.init_cfg=None'
        )


def checkpoint_to_load(config: Config) -> str | None:
    """The file a run starts from, or None.

    Raises:
        UserError: The run is to be resumed, and there is no checkpoint.
    """
    if config.get('load_from'):
        return config.load_from
    if not config.get('resume'):
        return None
    latest = find_latest_checkpoint(config.work_dir)
    if latest is None:
        raise UserError(
            f'--resume: no checkpoint in {config.work_dir}; start without '
            '--resume, or name the --work-dir of the interrupted run'
        )
    return latest


def check_checkpoint(path: str, model: nn.Module, config_name: str) -> None:
    """Check that a checkpoint file fits a model.

    Args:
        path: The file. Anything with a scheme (``https://``) is left to
            mmengine, which fetches it.
        model: The model, wrapped or not.
        config_name: What the model was built from, for the message.

    Raises:
        UserError: The file cannot be read, or the weights do not fit.
    """
    if '://' in path:
        return
    try:
        state = state_dict_of(read_checkpoint(path))
    except ValueError as error:
        raise UserError(str(error)) from error
    expected = {
        name.removeprefix('module.'): value
        for name, value in model.state_dict().items()
    }
    reasons = misfits(state, expected)
    if reasons:
        raise UserError(
            f'checkpoint {path} does not fit the model of {config_name}: '
            f'{"; ".join(reasons)}. Is it a checkpoint of this config?'
        )

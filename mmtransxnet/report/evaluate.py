"""Evaluate a checkpoint on the validation data of its config."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransxnet.engine import (
    build_runner,
    check_checkpoint,
    temporary_work_dir,
)
from mmtransxnet.report.classifier import ClassifierStudy
from mmtransxnet.report.detector import DetectorStudy
from mmtransxnet.report.findings import Findings
from mmtransxnet.report.segmentor import SegmentorStudy
from mmtransxnet.report.study import Study
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError

_STUDIES: dict[str, Callable[[Any], Study]] = dict(
    mmpretrain=ClassifierStudy, mmdet=DetectorStudy, mmseg=SegmentorStudy
)

# Findings of another version are not read again.
_VERSION = 1

# They compile or draw, or belong to a run of several processes.
_LEFT_OUT = ('runner_type', 'strategy', 'compile', 'model_wrapper_cfg')

Progress = Callable[[int, int], None]
"""Told the done and all batches."""


class StudyHook(Hook):
    """Shows each tested batch to a study.

    Args:
        study: The study, None for a task without one.
        progress: Told after each batch.
    """

    def __init__(self, study: Study | None, progress: Progress) -> None:
        self._study = study
        self._progress = progress

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Take the batch."""
        if self._study is not None:
            self._study.add(data_batch, outputs or ())
        self._progress(batch_idx + 1, len(runner.test_dataloader))


def evaluate(
    config: Config, checkpoint: str | Path, progress: Progress
) -> Findings:
    """Evaluate as tools/test.py does, and keep what the report shows.

    Args:
        config: The config of the run.
        checkpoint: Its file.
        progress: Told after each batch.

    Raises:
        UserError: The config has no validation data, the data is incomplete,
            or the checkpoint does not match.
    """
    with temporary_work_dir() as folder:
        config = validation_of(config, checkpoint, folder)
        runner = build_runner(config, ['test'])
        check_checkpoint(str(checkpoint), runner.model, 'the config')
        study = _study(config, runner)
        hook = StudyHook(study, progress)
        runner.register_hook(hook, 'LOW')
        metrics = runner.test()
        found = study.findings() if study else Findings()
    found.metrics = {
        name: float(value)
        for name, value in metrics.items()
        # IoUMetric's are numpy's, mmpretrain's may be torch's.
        if np.ndim(value) == 0 and not isinstance(value, str)
    }
    if not found.metrics:
        found.notes.append(
            "The config's evaluator gave no figure, as for a model that "
            'predicts nothing.'
        )
    return found


def _study(config: Config, runner: Runner) -> Study | None:
    """The study of the config's task; None for other tasks."""
    kind = _STUDIES.get(config.get('default_scope', ''))
    return kind(runner.test_dataloader.dataset) if kind else None


def validation_of(
    config: Config, checkpoint: str | Path, work_dir: str
) -> Config:
    """A copy of a config that tests on its validation data.

    Args:
        config: The config of a run.
        checkpoint: What is tested.
        work_dir: Folder of the test.

    Raises:
        UserError: There is no validation data.
    """
    config = copy.deepcopy(config)
    for name in ('dataloader', 'evaluator', 'cfg'):
        if config.get(f'val_{name}') is None:
            raise UserError(
                f'the config has no validation data (val_{name} is not set); '
                'add val_dataloader, val_evaluator and val_cfg to it'
            )
        config[f'test_{name}'] = config[f'val_{name}']
    # The type is that of a loop for validation.
    config.test_cfg = dict(fp16=config.val_cfg.get('fp16', False))
    config.work_dir = work_dir
    config.load_from, config.resume = str(checkpoint), False
    config.launcher = 'none'
    if 'backbone' in config.model:  # the checkpoint has all weights
        config.model.backbone.init_cfg = None
    for name in _LEFT_OUT:
        config.pop(name, None)
    config.custom_hooks = [
        hook
        for hook in config.get('custom_hooks') or []
        if hook['type'] != 'CompileHook'
    ]
    if config.get('default_hooks'):
        config.default_hooks.pop('visualization', None)
    if config.get('visualizer'):  # no second run of an online service
        config.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    config.log_level = 'WARNING'
    return config


def evaluate_once(
    config: Config, checkpoint: str | Path, cache: Path, progress: Progress
) -> Findings:
    """Evaluate, or read the findings of the same evaluation.

    Args:
        config: The config of the run.
        checkpoint: Its file.
        cache: Folder of the findings by content of checkpoint and config.
        progress: Told after each batch.

    Raises:
        UserError: As :func:`evaluate`.
    """
    file = cache / f'{key_of(config, checkpoint)}.json'
    if file.is_file():
        try:
            return Findings.from_json(file.read_text('utf-8'))
        except ValueError:  # damaged: evaluate again
            file.unlink()
    found = evaluate(config, checkpoint, progress)
    write_safely(file, found.to_json().encode(), 'start again')
    return found


def key_of(config: Config, checkpoint: str | Path) -> str:
    """Digest of a checkpoint, a config and the version of the findings.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    digest = hashlib.sha256(f'{_VERSION}'.encode())
    try:
        with open(checkpoint, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(
            f'checkpoint {checkpoint} cannot be read ({error.strerror}); '
            'name another with --checkpoint'
        ) from error
    digest.update(config.pretty_text.encode())
    return digest.hexdigest()[:32]

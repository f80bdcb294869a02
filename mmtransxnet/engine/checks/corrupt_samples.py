"""How a run handles corrupt pictures and annotations.

``bad_data`` in a config: ``policy='error'`` ends the run at the first corrupt
sample, ``'skip'`` trains without it and records it, up to ``limit`` of them.
Nothing is left out of an evaluation.
"""

import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmtransxnet.engine.checks.boxes import (
    has_coco_boxes,
    load_without_bad_boxes,
)
from mmtransxnet.engine.checks.dataset_types import (
    class_of,
    loading_of,
    map_datasets,
)
from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_sample,
    sample_of,
)
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

POLICIES = ('error', 'skip')

_FIND = 'tools/dataset/check.py CONFIG --deep finds all'
_SKIP = '--cfg-options bad_data.policy=skip'


class Record:
    """The corrupt samples of a run, found by any of its processes.

    Every process appends to its own file, so nothing is lost or interleaved on
    network file systems; the limit applies to the sum.

    Args:
        folder: Where the files are.
        limit: How many different corrupt samples are accepted.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit

    def add(self, problem: str) -> None:
        """Record a corrupt sample.

        Raises:
            UserError: The limit is exceeded.
        """
        if problem not in self.read():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f'{platform.node()}-{os.getpid()}.jsonl'
            with (self.folder / name).open('a') as file:
                file.write(json.dumps(problem) + '\n')
        # The last process to write sees all; the others see it the next time.
        problems = self.read()
        if len(problems) > self.limit:
            raise UserError(
                f'{_too_many(problems, self.limit)}. All are in {self.folder}'
            )

    def read(self) -> list[str]:
        """All distinct corrupt samples so far, sorted."""
        problems = set()
        for path in self.folder.glob('*.jsonl'):
            for line in path.read_text().splitlines():
                try:
                    problems.add(json.loads(line))
                except ValueError:
                    continue  # incomplete after a kill; recorded again
        return sorted(problems)

    def clear(self) -> None:
        """Delete the records of an earlier run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def record_of(config: Config) -> Record | None:
    """The record of a run that skips corrupt samples, or None.

    Raises:
        UserError: ``bad_data`` in the config is invalid.
    """
    settings = config.get('bad_data')
    if not settings:
        return None
    policy, limit = settings.get('policy'), settings.get('limit')
    if policy not in POLICIES:
        raise UserError(
            f'bad_data.policy: {policy!r} is not one of {", ".join(POLICIES)}'
        )
    if not isinstance(limit, int) or limit < 0:
        raise UserError(
            f'bad_data.limit: {limit!r} is not a number of samples'
        )
    if policy == 'error':
        return None
    return Record(Path(config.work_dir) / 'bad_data', limit)


def guard_data(runner: Runner, config: Config) -> None:
    """Check the samples of a Runner as its config says.

    The Runner's own config is not changed: it is saved in checkpoints, and the
    OpenMMLab libraries read pipelines from it.

    Args:
        runner: A Runner whose loaders are not built yet.
        config: The run.

    Raises:
        UserError: As :func:`record_of`.
    """
    record = record_of(config)
    if not config.get('bad_data'):
        return
    for split in ('train', 'val', 'test'):
        loader: Any = getattr(runner, f'_{split}_dataloader')
        # A user-defined loop may take something else.
        if not isinstance(loader, dict) or 'dataset' not in loader:
            continue
        settings = dict(
            type='guarded_dataset',
            **config.bad_data,
            folder=str(record.folder) if record else None,
            evaluates=split != 'train',
        )

        def guarded(dataset: Any, settings: dict = settings) -> dict:
            return dict(dataset=dataset, **settings)

        loader['dataset'] = map_datasets(guarded, loader['dataset'])
    if record:
        runner.register_hook(SkippedSamplesHook(record))


@DATASETS.register_module()
def guarded_dataset(
    dataset: Mapping[str, Any],
    policy: str,
    limit: int,
    folder: str | None = None,
    evaluates: bool = False,
) -> Any:
    """Build a data set that checks the samples it loads.

    It keeps its class, as samplers, wrappers and metrics expect. Samples that
    are loaded in an unknown way are not checked.

    Args:
        dataset: Its config.
        policy: ``'error'`` or ``'skip'``.
        limit: How many corrupt samples, and how many bad boxes, are accepted
            if they are skipped.
        folder: Where replaced corrupt samples are recorded; not needed if they
            are errors.
        evaluates: Whether this is for an evaluation, which leaves no picture
            out. Metrics read boxes themselves.

    Raises:
        UserError: There are bad boxes, or more than may be skipped.
    """
    built, problems = build_without_bad_boxes(dataset)
    if problems and policy == 'error':
        raise UserError(
            f'bad data: {len(problems)} bad boxes: {_first_few(problems)}. '
            f'Fix them ({_FIND}), or leave them out: {_SKIP}'
        )
    if len(problems) > limit:
        raise UserError(_too_many(problems, limit))
    for problem in problems:
        print_log(f'bad data, left out: {problem}', 'current', logging.WARNING)
    if not loading_of(built).decoded:
        return built
    if evaluates:
        built.prepare_data = Guard(built, 'an evaluation needs all pictures')
    elif policy == 'error' or folder is None:
        built.prepare_data = Guard(built, f'or train without it: {_SKIP}')
    else:
        built.prepare_data = Guard(built, Record(folder, limit))
    return built


def build_without_bad_boxes(
    dataset: Mapping[str, Any],
) -> tuple[Any, list[str]]:
    """Build a data set without its bad boxes.

    Args:
        dataset: Config of a data set, with boxes or without.

    Returns:
        The data set, and the problems of the boxes left out.
    """
    if not has_coco_boxes(class_of(dataset, DATASETS)):
        return DATASETS.build(dataset), []
    built = DATASETS.build({**dataset, 'lazy_init': True})
    return built, load_without_bad_boxes(built)


class Guard:
    """``prepare_data`` of a data set that checks a sample first.

    It replaces the method, so samples that a data set fetches internally are
    checked as well.

    Args:
        dataset: A built data set of a library.
        policy: Record of the replaced corrupt samples; or, if they are errors,
            the end of the message.
    """

    def __init__(self, dataset: Any, policy: Record | str) -> None:
        self._dataset = dataset
        self._policy = policy
        self._loading = loading_of(dataset)

    def __call__(self, index: int) -> Any:
        """Load a sample; a corrupt one is replaced by the next valid one.

        The replacement depends on the index alone, so a resumed run sees the
        same.

        Raises:
            UserError: The sample is corrupt and must not be replaced, too many
                are corrupt, or none is valid.
        """
        count = len(self._dataset)
        for candidate in range(index, index + count):
            try:
                return self._load(candidate % count)
            except CorruptSampleError as error:
                if isinstance(self._policy, str):
                    raise UserError(
                        f'bad data: {error}. Fix it ({_FIND}), {self._policy}'
                    ) from error
                self._policy.add(str(error))
        raise UserError(f'bad data: none of {count} samples is valid')

    def _load(self, index: int) -> Any:
        dataset = self._dataset
        info = dataset.get_data_info(index)
        sample = sample_of(info, self._loading)
        if sample is None:
            return type(dataset).prepare_data(dataset, index)
        check_sample(sample)
        try:
            return type(dataset).prepare_data(dataset, index)
        except Exception as error:
            # The first check does not decode the picture.
            check_sample(sample, decode=True)
            raise RuntimeError(
                f'{sample.picture} is valid, but its pipeline failed: '
                f'{error!r}'
            ) from error


class SkippedSamplesHook(Hook):
    """Log which corrupt samples were replaced.

    Args:
        record: Record of the run.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._reported: set[str] = set()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Report every 50 iterations."""
        if self.every_n_train_iters(runner, 50):
            self._report(runner)

    def after_train(self, runner: Runner) -> None:
        """Report the remaining ones."""
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        if not is_main_process():
            return
        problems = self._record.read()
        for problem in problems:
            if problem not in self._reported:
                runner.logger.warning(f'bad data, replaced: {problem}')
        if len(problems) > len(self._reported):
            runner.logger.warning(
                f'bad data: {len(problems)} samples replaced, at most '
                f'{self._record.limit} are accepted'
            )
        self._reported.update(problems)


def _too_many(problems: Sequence[str], limit: int) -> str:
    return (
        f'bad data: {len(problems)} are more than bad_data.limit={limit}: '
        f'{_first_few(problems)}. Fix them ({_FIND})'
    )


def _first_few(problems: Sequence[str]) -> str:
    return first_few(problems, separator='; ')

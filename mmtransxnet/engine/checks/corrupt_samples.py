"""What a run does with pictures and annotations that are unfit.

``bad_data`` in a config: ``policy='error'`` ends the run where it meets one,
``'skip'`` trains without it and lists it, up to ``limit`` of them. Nothing
is left out of an evaluation.
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

    Every process appends to a file of its own, so nothing is lost or mixed
    up on network file systems; the sum counts.

    Args:
        folder: Where the files are.
        limit: How many different corrupt samples are accepted.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit

    def add(self, problem: str) -> None:
        """Take note of a corrupt sample.

        Raises:
            UserError: Now there are more than the limit.
        """
        if problem not in self.read():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f'{platform.node()}-{os.getpid()}.jsonl'
            with (self.folder / name).open('a') as file:
                file.write(json.dumps(problem) + '\n')
        # Whoever writes last sees all; the others see it the next time.
        found = self.read()
        if len(found) > self.limit:
            raise UserError(
                f'{_too_many(found, self.limit)}. All are in {self.folder}'
            )

    def read(self) -> list[str]:
        """All different corrupt samples up to now, sorted."""
        found = set()
        for path in self.folder.glob('*.jsonl'):
            for line in path.read_text().splitlines():
                try:
                    found.add(json.loads(line))
                except ValueError:
                    continue  # cut off by a kill; found again if needed
        return sorted(found)

    def clear(self) -> None:
        """Forget what an earlier run has found."""
        shutil.rmtree(self.folder, ignore_errors=True)


def record_of(config: Config) -> Record | None:
    """The record of a run that skips corrupt samples, or None.

    Raises:
        UserError: ``bad_data`` in the config is not as it should be.
    """
    settings = config.get('bad_data')
    if not settings:
        return None
    policy, limit = settings.get('policy'), settings.get('limit')
    if policy not in POLICIES:
        raise UserError(
            f'bad_data.policy: {policy!r} is none of {", ".join(POLICIES)}'
        )
    if not isinstance(limit, int) or limit < 0:
        raise UserError(f'bad_data.limit: {limit!r} is no number of samples')
    if policy == 'error':
        return None
    return Record(Path(config.work_dir) / 'bad_data', limit)


def guard_data(runner: Runner, config: Config) -> None:
    """Have the samples of a Runner checked as its config says.

    The Runner's own config is left as it is: it goes into checkpoints, and
    the libraries read pipelines from it.

    Args:
        runner: A Runner that has not built its loaders.
        config: The run.

    Raises:
        UserError: As :func:`record_of`.
    """
    record = record_of(config)
    if not config.get('bad_data'):
        return
    for split in ('train', 'val', 'test'):
        loader: Any = getattr(runner, f'_{split}_dataloader')
        # The loop of a user may take something else.
        if not isinstance(loader, dict) or 'dataset' not in loader:
            continue
        settings = dict(
            type='guarded_dataset',
            **config.bad_data,
            folder=str(record.folder) if record else None,
            evaluates=split != 'train',
        )

        def guard(dataset: Any, settings: dict = settings) -> dict:
            return dict(dataset=dataset, **settings)

        loader['dataset'] = map_datasets(guard, loader['dataset'])
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
    """Build a data set of a library that checks what it loads.

    It remains the library's: samplers, wrappers and metrics that look at it
    find what they expect. Where it is not known how samples are loaded, they
    are not checked.

    Args:
        dataset: Its config.
        policy: ``'error'`` or ``'skip'``.
        limit: How many corrupt samples, and how many bad boxes, are accepted
            if they are skipped.
        folder: Where corrupt samples are recorded that others take the place
            of; not needed if they are errors.
        evaluates: Whether this is for an evaluation, of which no picture is
            left out. Metrics read boxes themselves.

    Raises:
        UserError: There are bad boxes, or more than may be skipped.
    """
    built, problems = build_without_bad_boxes(dataset)
    if problems and policy == 'error':
        raise UserError(
            f'bad data: {len(problems)} bad boxes: {_first(problems)}. Mend '
            f'them ({_FIND}), or leave them out: {_SKIP}'
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
    """Build a data set, and leave out bad boxes.

    Args:
        dataset: Config of a data set, with boxes or without.

    Returns:
        The data set, and what is wrong with the boxes left out.
    """
    if not has_coco_boxes(class_of(dataset, DATASETS)):
        return DATASETS.build(dataset), []
    built = DATASETS.build({**dataset, 'lazy_init': True})
    return built, load_without_bad_boxes(built)


class Guard:
    """``prepare_data`` of a data set that checks a sample first.

    In place of the method, so that the samples which a data set fetches on
    its own account are checked as well.

    Args:
        dataset: A built data set of a library.
        policy: Where corrupt samples are recorded that are replaced; if the
            first is an error, the last words of its message.
    """

    def __init__(self, dataset: Any, policy: Record | str) -> None:
        self._dataset = dataset
        self._policy = policy
        self._loading = loading_of(dataset)

    def __call__(self, index: int) -> Any:
        """Load a sample; in place of a corrupt one the next that is good.

        Which one depends on the index alone, so a resumed run sees the same.

        Raises:
            UserError: It is corrupt and must not be replaced, there are too
                many, or no good one is left.
        """
        count = len(self._dataset)
        for candidate in range(index, index + count):
            try:
                return self._load(candidate % count)
            except CorruptSampleError as error:
                if isinstance(self._policy, str):
                    raise UserError(
                        f'bad data: {error}. Mend it ({_FIND}), {self._policy}'
                    ) from error
                self._policy.add(str(error))
        raise UserError(f'bad data: none of {count} samples is good')

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
            # The first look is a short one.
            check_sample(sample, decode=True)
            raise RuntimeError(
                f'{sample.picture} is sound, but its pipeline failed: '
                f'{error!r}'
            ) from error


class SkippedSamplesHook(Hook):
    """Says in the log which corrupt samples were replaced.

    Args:
        record: Where they are recorded.
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
        """Report the rest."""
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        if not is_main_process():
            return
        found = self._record.read()
        for problem in found:
            if problem not in self._reported:
                runner.logger.warning(f'bad data, replaced: {problem}')
        if len(found) > len(self._reported):
            runner.logger.warning(
                f'bad data: {len(found)} samples replaced, at most '
                f'{self._record.limit} are accepted'
            )
        self._reported.update(found)


def _too_many(problems: Sequence[str], limit: int) -> str:
    return (
        f'bad data: {len(problems)} are more than bad_data.limit={limit}: '
        f'{_first(problems)}. Mend them ({_FIND})'
    )


def _first(problems: Sequence[str]) -> str:
    return first_few(problems, separator='; ')

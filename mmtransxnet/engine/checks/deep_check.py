"""Check every picture and annotation that a config reads."""

import copy
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtransxnet.engine.checks.boxes import orphans
from mmtransxnet.engine.checks.corrupt_samples import build_without_bad_boxes
from mmtransxnet.engine.checks.dataset_types import (
    datasets_of,
    loading_of,
)
from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    Sample,
    check_sample,
    sample_of,
)

_CHUNK = 16
"""Samples that are sent to a process at a time."""


class DeepCheck:
    """All samples of the loaders of a config.

    They are listed by the data sets themselves, as in a run.

    Args:
        config: The run.

    Attributes:
        samples: Samples to check, without duplicates.
        problems: Problems of the annotations, one line each.
        unchecked: Data sets whose samples cannot be checked, one line each.
    """

    def __init__(self, config: Config) -> None:
        samples: dict[Sample, None] = {}
        problems: dict[str, None] = {}
        unchecked: dict[str, None] = {}
        scope = config.get('default_scope', 'mmengine')
        for split in ('train', 'val', 'test'):
            for dataset in datasets_of(config, split):
                with DefaultScope.overwrite_default_scope(scope):
                    listed, errors = _list_samples(dataset)
                samples.update(dict.fromkeys(listed))
                problems.update(dict.fromkeys(errors))
                if not listed and not errors:
                    unchecked[
                        f'{split} data, not checked: {_short_name(dataset)}: '
                        'its samples are not pictures on a local disk that '
                        'are loaded in a known way'
                    ] = None
        self.samples = list(samples)
        self.problems = list(problems)
        self.unchecked = list(unchecked)

    def run(self, workers: int) -> Iterator[str | None]:
        """Decode all pictures.

        Args:
            workers: Number of processes.

        Yields:
            The problem of each sample, or None.
        """
        with ProcessPoolExecutor(workers) as pool:
            yield from pool.map(_check, self.samples, chunksize=_CHUNK)


def _check(sample: Sample) -> str | None:
    try:
        check_sample(sample, decode=True)
    except CorruptSampleError as error:
        return str(error)
    return None


def _list_samples(
    dataset: Mapping[str, Any],
) -> tuple[list[Sample], list[str]]:
    """List the samples of a data set and the problems of its annotations."""
    described = copy.deepcopy(dict(dataset))
    if 'filter_cfg' in described:  # nothing is left out
        described['filter_cfg'] = None
    try:
        built, problems = build_without_bad_boxes(described)
    # The libraries raise various errors for invalid annotation files.
    except Exception as error:
        return [], [f'{_short_name(dataset)} cannot be read ({error!r})']
    loading = loading_of(built)
    if not loading.decoded:
        return [], problems
    infos = map(built.get_data_info, range(len(built)))
    candidates = (sample_of(info, loading) for info in infos)
    samples = [sample for sample in candidates if sample is not None]
    return samples, problems + orphans(built)


def _short_name(dataset: Mapping[str, Any]) -> str:
    """A short description of a data set from its config."""
    name = dataset.get('ann_file') or dataset.get('data_prefix')
    return f'{name or dataset.get("type")} of {dataset.get("data_root", "")}'

"""The files of ``make bench``: one for each machine and version.

``{"version": ..., "machine": {...}, "runs": [[result, ...], ...]}``, where a
result is that of a case in ``speed.json``, with the name of its work.
"""

import json
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmtransxnet.utils.errors import UserError

Run = dict[tuple[str, str], dict[str, Any]]
"""Results by work and case."""

_NUMBERS = ('peak_share', 'page_faults', 'system_share')


class Record:
    """A file, read and checked.

    Args:
        path: The file.

    Raises:
        UserError: It is not what ``bench`` writes.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text())
            self.version: str = content['version']
            machine = content['machine']
            self.title = machine_title(machine)
            self.settings = _settings(machine)
            self.software = f'torch {machine["torch"]}, {machine["libc"]}'
            self.flops: dict[str, float] = machine['matmul_flops']
            self.runs = [_by_case(run) for run in content['runs']]
            _check(content, self.runs, path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise UserError(
                f'{path} is not a file of `make bench` '
                f'({type(e).__name__}: {e}); measure again or remove it'
            ) from e

    def results(self, work: str, case: str) -> list[dict[str, Any]]:
        """The result of a case in each run; empty if not measured."""
        found = [run.get((work, case)) for run in self.runs]
        return [result for result in found if result]

    def speed_ratios(self, work: str, case: str, other: str) -> list[float]:
        """How many times as fast a case is, in each run."""
        return [
            statistics.median(
                a / b
                for a, b in zip(
                    theirs['seconds'], mine['seconds'], strict=True
                )
            )
            for mine, theirs in self._pairs(work, case, other)
        ]

    def memory_ratios(self, work: str, case: str, other: str) -> list[float]:
        """Peak memory of a case as a part of another's, in each run."""
        return [
            mine['peak_mib'] / theirs['peak_mib']
            for mine, theirs in self._pairs(work, case, other)
            if mine['peak_mib'] and theirs['peak_mib']
        ]

    def _pairs(self, work: str, case: str, other: str) -> Iterator[tuple]:
        """Results of two cases in each run; none if one is missing."""
        # Strict would refuse a case that was not measured.
        return zip(
            self.results(work, case), self.results(work, other), strict=False
        )


def read_records(folder: Path) -> list[Record]:
    """The files of a folder by name; see :class:`Record`."""
    return [Record(path) for path in sorted(folder.glob('*.json'))]


def headline(records: list[Record]) -> list[Record]:
    """Those of the newest version with the system's default settings."""
    records = [record for record in records if not record.settings]
    latest = max(map(_version, records), default=None)
    return [record for record in records if _version(record) == latest]


def _version(record: Record) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', record.version)]


def _settings(machine: Mapping[str, Any]) -> list[str]:
    """Settings that are not the system's default, but threads."""
    return [
        f'{name}={value}'
        for name, value in machine['environment'].items()
        if name != 'OMP_NUM_THREADS'
    ]


def machine_title(machine: Mapping[str, Any]) -> str:
    """Processor, threads, and other settings than the default."""
    # Trademarks and frequencies of Intel's names.
    name = re.sub(
        r'\((R|TM)\)| @ .*?GHz| CPU| Processor', '', machine['device']
    )
    threads = f'{machine["threads"]} threads'
    return ', '.join([name, threads, *_settings(machine)])


def file_name(content: Mapping[str, Any]) -> str:
    """``amd-epyc-avx512-2-threads-0.1.0.json``."""
    title = machine_title(content['machine']).lower()
    slug = re.sub('[^a-z0-9]+', '-', title).strip('-')
    return f'{slug}-{content["version"]}.json'


def _by_case(run: list[dict[str, Any]]) -> Run:
    return {(result['work'], result['case']): result for result in run}


def _check(content: Mapping[str, Any], runs: list[Run], path: Path) -> None:
    """Raise an error for what would give a wrong or an empty table.

    It is a TypeError where something is not a number.
    """
    if not runs or not runs[0]:
        raise ValueError('it has no results')
    if path.name != file_name(content):
        raise ValueError(f'its name should be {file_name(content)}')
    if min(content['machine']['matmul_flops'].values()) <= 0:
        raise ValueError('a figure that is not above zero')
    rounds: dict[str, int] = {}
    for run in runs:
        if run.keys() != runs[0].keys():
            raise ValueError('its runs have different cases')
        for (work, _), result in run.items():
            _check_figures(result)
            count = len(result['seconds'])
            if rounds.setdefault(work, count) != count:
                raise ValueError(f'different numbers of rounds in {work}')


def _check_figures(result: dict[str, Any]) -> None:
    positive = [*result['seconds'], result['flops']]
    if result['peak_mib'] is not None:
        positive.append(result['peak_mib'])
    if not result['seconds'] or min(positive) <= 0:
        raise ValueError(f'a figure of {result["case"]} is not above zero')
    if min(result[key] for key in _NUMBERS) < 0:
        raise ValueError(f'a figure of {result["case"]} is below zero')

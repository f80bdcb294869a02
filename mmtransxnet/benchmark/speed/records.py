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
            self.title = machine_title(content['machine'])
            self.flops: dict[str, float] = content['machine']['matmul_flops']
            self.runs = [_by_case(run) for run in content['runs']]
            expected = file_name(content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise UserError(
                f'{path} is not a file of `make bench` '
                f'({type(e).__name__}: {e}); measure again or remove it'
            ) from e
        self._check(path, expected)

    def _check(self, path: Path, expected: str) -> None:
        """What would otherwise give a wrong or an empty table."""
        problem = None
        if not self.runs or not self.runs[0]:
            problem = 'has no results'
        elif any(run.keys() != self.runs[0].keys() for run in self.runs):
            problem = 'has runs with different cases'
        elif path.name != expected:
            problem = f'has the results of {expected}'
        if problem:
            raise UserError(f'{path} {problem}; measure again or remove it')

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
        mine, theirs = self.results(work, case), self.results(work, other)
        return zip(mine, theirs, strict=bool(mine and theirs))


def read_records(folder: Path) -> list[Record]:
    """The files of a folder by name; see :class:`Record`."""
    return [Record(path) for path in sorted(folder.glob('*.json'))]


def newest(records: list[Record]) -> list[Record]:
    """Those of the newest version."""
    versions = [_version(record) for record in records]
    return [
        record
        for record, version in zip(records, versions, strict=True)
        if version == max(versions)
    ]


def _version(record: Record) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', record.version)]


def machine_title(machine: Mapping[str, Any]) -> str:
    """Processor, threads, and the settings that are not the default."""
    # Trademarks and frequencies of Intel's names.
    name = re.sub(
        r'\((R|TM)\)| @ .*?GHz| CPU| Processor', '', machine['device']
    )
    settings = [f'{k}={v}' for k, v in machine['environment'].items()]
    return ', '.join([name, f'{machine["threads"]} threads', *settings])


def file_name(content: Mapping[str, Any]) -> str:
    """``amd-epyc-avx512-2-threads-0.1.0.json``."""
    title = machine_title(content['machine']).lower()
    slug = re.sub('[^a-z0-9]+', '-', title).strip('-')
    return f'{slug}-{content["version"]}.json'


def _by_case(run: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Results by work and case, with the figures that tables need."""
    for result in run:
        positive = [*result['seconds'], result['flops']]
        memory = result['peak_mib']
        if memory is not None:
            positive.append(memory)
        others = [result[key] for key in _NUMBERS]
        # Raises TypeError for what is not a number.
        if not result['seconds'] or min(positive) <= 0 or min(others) < 0:
            raise ValueError(f'{result["case"]} has a figure below zero')
    return {(result['work'], result['case']): result for result in run}

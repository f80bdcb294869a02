"""The trials of all families; known results are not repeated."""

import datetime
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmtransxnet.benchmark.families.tables import read, versions, write
from mmtransxnet.benchmark.families.trials import isolated
from mmtransxnet.benchmark.families.zoo import (
    LIBRARIES,
    Family,
    list_families,
)
from mmtransxnet.utils.errors import UserError


def select(names: Sequence[str]) -> list[Family]:
    """All families, or those that are named.

    Args:
        names: Libraries, or families as ``'mmdet/yolo'``.

    Raises:
        UserError: A name is neither.
    """
    families = [f for library in LIBRARIES for f in list_families(library)]
    for name in names:
        if name not in (*LIBRARIES, *map(str, families)):
            raise UserError(
                f"'{name}' is neither a library ({', '.join(LIBRARIES)}) nor "
                'a family of one, such as mmdet/yolo'
            )
    return [
        f for f in families if not names or {f.library, str(f)} & set(names)
    ]


def try_all(
    families: Sequence[Family],
    out: Path,
    *,
    again: bool,
    minutes: float | None,
    limit: float,
    memory: float,
    report: Callable[[str], None],
) -> None:
    """Try families without results, saving each result at once.

    Args:
        families: The families.
        out: Folder of the results, a file for each library.
        again: Whether to repeat families with results.
        minutes: No trial is started after this time.
        limit: Time limit of a family in seconds.
        memory: Memory limit of a family in GiB.
        report: Gets a line for each family.

    Raises:
        UserError: The folder has results of other versions.
    """
    end = time.monotonic() + 60 * (math.inf if minutes is None else minutes)
    for number, family in enumerate(families, 1):
        path = out / f'{family.library}.json'
        results = read(path)
        if results and results['made']['versions'] != versions():
            raise UserError(f'{path} is of other packages; give another --out')
        if family.name in results.get('families', {}) and not again:
            continue
        if time.monotonic() > end:
            report(f'{minutes} minutes are over')
            return
        result = isolated(family, limit, memory)
        results.setdefault('families', {})[family.name] = result
        results['made'] = dict(
            date=datetime.date.today().isoformat(), versions=versions()
        )
        write(path, results)
        report(
            f'{number}/{len(families)} {family} {result["seconds"]} s: '
            f'{result["step"]}; TransXNet-T: {result.get("transxnet", "-")}'
        )

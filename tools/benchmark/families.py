"""Train a step of one model of each family of mmdet, mmseg and mmpretrain.

Each is tried twice: as its library ships it, with a prediction, and with
TransXNet-T in place of its backbone. What is known already is not tried
again, so the command can be stopped and started at any time.

    python tools/benchmark/families.py --out work_dirs/families
    python tools/benchmark/families.py --table docs/families.md
"""

import argparse
import copy
import datetime
import importlib.metadata
import json
import math
import multiprocessing
import os
import re
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from pictures import SIZES, batch, own_sizes, sizes_of
from rich.console import Console
from transplant import outputs_of, put_in
from zoo import (
    LIBRARIES,
    Family,
    Unfit,
    build,
    families,
    import_library,
    load,
    make_affordable,
    predict,
    train_step,
)

import mmtransxnet

Result = dict[str, Any]
FINE = 'yes'


def parse_args() -> argparse.Namespace:
    """Read what to try."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'names',
        nargs='*',
        metavar='LIBRARY[/FAMILY]',
        help=f'what to try (default: all of {", ".join(LIBRARIES)})',
    )
    parser.add_argument('--out', type=Path, default='work_dirs/families')
    parser.add_argument('--again', action='store_true', help='try known ones')
    parser.add_argument(
        '--minutes', type=float, help='begin nothing new after this time'
    )
    parser.add_argument(
        '--limit', type=float, default=240, help='seconds for a family'
    )
    parser.add_argument(
        '--memory', type=float, default=12, help='GiB for a family'
    )
    parser.add_argument(
        '--table', type=Path, help='only write the tables of this page'
    )
    args = parser.parse_args()
    known = {str(one) for name in LIBRARIES for one in families(name)}
    for name in args.names:
        if name not in known and name not in LIBRARIES:
            parser.error(f"'{name}' is no library and no family of one")
    return args


# ------------------------------------------------------------------ trials
def attempt(work: Callable[[], Any]) -> str:
    """Do some work; ``FINE``, or why it failed in a line."""
    try:
        work()
    except Unfit as error:
        return str(error)
    # Models of others raise what they like, and it is the result here.
    except Exception as error:
        return told(error)
    return FINE


def told(error: BaseException) -> str:
    """An exception in a line of a table."""
    # The registries put before it what they were building.
    text = re.sub(r'^class `\w+` in \S+: ', '', ' '.join(str(error).split()))
    # A table names files, not where they lie.
    text = re.sub(r'(https?:/|(?<!\w))/\S+/', '', text)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = text or f'in {frame.name} of {Path(frame.filename).name}'
    text = f'{type(error).__name__}: {text}'.replace('|', '/')
    return text if len(text) <= 140 else f'{text[:137]}...'


def try_family(family: Family, results: Connection) -> None:
    """Try a family both ways; send what is known after each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    socket.getaddrinfo = _no_network
    result: Result = dict(config='', size=SIZES[0], prediction='')

    def own() -> None:
        result['config'], config = prepared(family)
        for size in sizes_of(config):
            result.update(size=size, **try_own(family, size))
            if not result['step'].startswith(_OF_THE_SIZE):
                return
        large = next(own_sizes(config), 0)
        if large > SIZES[-1]:
            result['step'] += f' (made for {large} pixels)'

    unread = attempt(own)
    if unread != FINE:
        result['step'] = unread
    results.send(result)
    if result['step'] == FINE:
        result['transxnet'] = attempt(
            lambda: try_transxnet(family, result['size'])
        )
        results.send(result)


# Errors that a larger picture may mend.
_OF_THE_SIZE = ('AssertionError', 'RuntimeError', 'ValueError', 'IndexError')


def prepared(family: Family) -> tuple[str, Config]:
    """The name of a family's config, and the config as it is tried."""
    name, config = load(family)
    make_affordable(config)
    return name, config


def try_own(family: Family, size: int) -> Result:
    """One step and one prediction of the model as its library ships it."""
    result: Result = dict(prediction='')

    def step() -> None:
        _, config = prepared(family)
        data = batch(config, family.library, size)
        model = build(config, size)
        train_step(model, copy.deepcopy(data))
        if hasattr(model, 'predict'):
            result['prediction'] = attempt(lambda: predict(model, data))

    result['step'] = attempt(step)
    return result


def try_transxnet(family: Family, size: int) -> None:
    """One step of the model with TransXNet-T as its backbone."""
    _, config = prepared(family)
    outputs = outputs_of(build(config, size), size)
    _, config = prepared(family)
    put_in(config, outputs)
    model = build(config, size)
    train_step(model, batch(config, family.library, size))
    # It may be zero: some heads begin with weights of zero.
    if all(p.grad is None for p in model.backbone.parameters()):
        raise ArithmeticError('no gradient reaches the backbone')


def _no_network(*args: Any, **kwargs: Any) -> None:
    raise OSError('needs a file from the network')


def isolated(family: Family, limit: float, memory: float) -> Result:
    """:func:`try_family` in a process of its own, within bounds.

    A fork has everything imported already; what it allocates goes with it.

    Args:
        family: The family.
        limit: Seconds that it may take.
        memory: GiB of addresses that it may use.
    """
    context = multiprocessing.get_context('fork')
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=_bounded, args=(family, there, int(memory * 2**30))
    )
    start = time.monotonic()
    process.start()
    there.close()
    result: Result = dict(config='', size=SIZES[0], step='')
    try:
        while here.poll(max(0, start + limit - time.monotonic())):
            result = here.recv()
        ended = f'takes longer than {limit:.0f} s'
    except EOFError:
        process.join()
        ended = f'ends with exit status {process.exitcode}'
    process.kill()
    process.join()
    if not result['step']:
        result['step'] = ended
    elif result['step'] == FINE and 'transxnet' not in result:
        result['transxnet'] = ended
    result['seconds'] = round(time.monotonic() - start, 1)
    return result


def _bounded(family: Family, results: Connection, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # What the libraries say belongs into no table.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try_family(family, results)


# ----------------------------------------------------------------- results
def read(path: Path) -> Result:
    """The results of a library so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: Result) -> None:
    """Replace the results of a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix('.new')
    draft.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n')
    draft.replace(path)


def versions() -> list[str]:
    """The packages that the libraries are installed from, with versions."""
    distributions = importlib.metadata.packages_distributions()
    names = ('torch', 'torchvision', 'mmengine', 'mmcv', *LIBRARIES)
    found = [distributions[name][0] for name in names]
    return [f'{one} {importlib.metadata.version(one)}' for one in found]


def try_all(args: argparse.Namespace, console: Console) -> None:
    """Try what has not been tried, and keep each result at once."""
    minutes = math.inf if args.minutes is None else args.minutes
    end = time.monotonic() + 60 * minutes
    for library in LIBRARIES:
        path = args.out / f'{library}.json'
        made = read(path).get('made')
        if made and made['versions'] != versions():
            sys.exit(f'error: {path} is of other packages; give another --out')
        todo = [one for one in families(library) if asked(one, args.names)]
        for number, family in enumerate(todo, 1):
            results = read(path)
            if family.name in results.get('families', {}) and not args.again:
                continue
            if time.monotonic() > end:
                console.print(f'{args.minutes} minutes are over')
                return
            found = isolated(family, args.limit, args.memory)
            results.setdefault('families', {})[family.name] = found
            results['made'] = dict(
                date=datetime.date.today().isoformat(), versions=versions()
            )
            write(path, results)
            console.print(
                f'{number}/{len(todo)} {family} {found["seconds"]} s: '
                f'{found["step"]}; TransXNet-T: {found.get("transxnet", "-")}',
                markup=False,
                highlight=False,
            )


def asked(family: Family, names: list[str]) -> bool:
    """Whether a family is among what was named."""
    return not names or family.library in names or str(family) in names


# ------------------------------------------------------------------- table
def table(library: str, results: Result) -> str:
    """The results of a library as text and a markdown table."""
    found = results['families']
    own = sum(one['step'] == FINE for one in found.values())
    ours = sum(one.get('transxnet') == FINE for one in found.values())
    made = results['made']
    head = (
        f'{len(found)} families of {library}: **{own}** train a step as they '
        f'are, **{ours}** with TransXNet-T. {made["date"]}, '
        f'{", ".join(made["versions"])}.\n\n'
        '| family | config | pixels | as it is | prediction | TransXNet-T |\n'
        '|---|---|---|---|---|---|\n'
    )
    return head + ''.join(
        f'| {" | ".join([name, *cells(one)])} |\n'
        for name, one in sorted(found.items())
    )


def cells(one: Result) -> list[str]:
    """The row of a family."""
    fine = one['step'] == FINE
    return [
        one['config'],
        str(one['size']) if fine else '',
        one['step'],
        one.get('prediction') or ('none' if fine else ''),
        one.get('transxnet', ''),
    ]


_MARKED = re.compile(
    r'(<!-- families: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL
)


def write_tables(page: Path, folder: Path) -> None:
    """Put the results into a page, between its marks."""

    def part(found: re.Match[str]) -> str:
        results = read(folder / f'{found[2]}.json')
        if not results:
            return found[0]  # another library's are there
        return f'{found[1]}\n{table(found[2], results)}\n{found[3]}'

    page.write_text(_MARKED.sub(part, page.read_text()))


def main() -> None:
    """Try, print and keep the results, or write them into a page."""
    args = parse_args()
    if args.table:
        write_tables(args.table, args.out)
        return
    console = Console(soft_wrap=True)
    for library in LIBRARIES:
        import_library(library)
    console.print(f'mmtransxnet {mmtransxnet.__version__},', *versions())
    try_all(args, console)


if __name__ == '__main__':
    main()

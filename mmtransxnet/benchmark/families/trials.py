"""Try a family in a separate process: as shipped, and with TransXNet."""

import copy
import multiprocessing
import os
import re
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmtransxnet.benchmark.families.batches import (
    SIZES,
    batch,
    own_sizes,
    sizes_of,
)
from mmtransxnet.benchmark.families.transplant import (
    outputs_of,
    replace_backbone,
)
from mmtransxnet.benchmark.families.zoo import (
    Family,
    Unsupported,
    build,
    load,
    make_affordable,
    predict,
    train_step,
)

Result = dict[str, Any]
FINE = 'yes'


def attempt(work: Callable[[], Any]) -> str:
    """Run a function; return ``FINE`` or the error in one line."""
    try:
        work()
    except Unsupported as error:
        return str(error)
    # Models of other libraries may raise any error; it is the result here.
    except Exception as error:
        return describe(error)
    return FINE


def describe(error: BaseException) -> str:
    """Format an exception for a table."""
    # Registries prepend the class that they were building.
    text = re.sub(r'^class `\w+` in \S+: ', '', ' '.join(str(error).split()))
    # Tables contain file names, not paths.
    text = re.sub(r'(https?:/|(?<!\w))/\S+/', '', text)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = text or f'in {frame.name} of {Path(frame.filename).name}'
    text = f'{type(error).__name__}: {text}'.replace('|', '/')
    return text if len(text) <= 140 else f'{text[:137]}...'


def try_family(family: Family, results: Connection) -> None:
    """Try a family both ways; send the result after each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    socket.getaddrinfo = _no_network  # type: ignore[assignment]
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


# Errors that may not occur with larger pictures.
_OF_THE_SIZE = ('AssertionError', 'RuntimeError', 'ValueError', 'IndexError')


def prepared(family: Family) -> tuple[str, Config]:
    """Name and content of the config to try."""
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
    replace_backbone(config, outputs)
    model = build(config, size)
    train_step(model, batch(config, family.library, size))
    # It may be zero: some heads are initialised with zeros.
    if all(p.grad is None for p in model.backbone.parameters()):
        raise ArithmeticError('no gradient reaches the backbone')


def _no_network(*args: Any, **kwargs: Any) -> None:
    raise OSError('needs a file from the network')


def isolated(family: Family, limit: float, memory: float) -> Result:
    """Run :func:`try_family` in a separate process with limits.

    A fork has everything imported already, and frees its memory on exit.

    Args:
        family: The family.
        limit: Time limit in seconds.
        memory: Limit of the address space in GiB.
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
    import resource  # POSIX only

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Suppress the output of the libraries.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try_family(family, results)

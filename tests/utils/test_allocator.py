"""Freed memory is kept, where glibc allows it and the user does not object.

Thresholds cannot be taken back, so each process that sets them is a fork.
Where pages have to be new, it is a new program: a fork of the tests' process
may find large free blocks in the heap it inherits.
"""

import ctypes
import multiprocessing
import os
import platform
import resource
from ast import literal_eval
from pathlib import Path

import pytest

from mmtransxnet.apis import keep_freed_memory
from mmtransxnet.utils import allocator
from mmtransxnet.utils.errors import UserError
from tests.support.tools import environment, run_python

BLOCK = 2**26  # above glibc's largest default threshold
BLOCKS = 8

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='glibc only'
)


def in_a_fork(function, **variables):
    """What a function returns in a process of its own."""

    def call():
        os.environ.update(variables)
        try:
            sender.send(function())
        except BaseException as error:
            sender.send(error)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context('fork').Process(target=call)
    process.start()
    result = receiver.recv() if receiver.poll(60) else None
    process.join(60)
    if isinstance(result, BaseException):
        raise result
    return result


def in_a_new_program(function, **variables):
    """What a function of this module returns in a fresh interpreter."""
    code = f'import {__name__} as tests; print(tests.{function.__name__}())'
    printed = run_python(code, env=environment(**variables))
    return literal_eval(printed.splitlines()[-1])


@pytest.fixture(autouse=True)
def _without_settings(monkeypatch):
    for name in (allocator.SWITCH, 'GLIBC_TUNABLES', *allocator._VARIABLES):
        monkeypatch.delenv(name, raising=False)


def fill(size):
    """A block that is written to, and freed at once."""
    return len(b'x' * size)


def share_of_faults():
    """Page faults in a second series of blocks, per page."""
    fill(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(BLOCKS):
        fill(BLOCK)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return (after - before) / (BLOCKS * BLOCK / resource.getpagesize())


def keep_and_count():
    """Whether memory is kept, and the faults then."""
    return keep_freed_memory(), share_of_faults()


def resident():
    """Resident memory in bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()


def keep_free_and_fork():
    """Memory that is kept before and after a fork, in bytes."""
    keep_freed_memory()
    before = resident()
    blocks = [b'x' * BLOCK for _ in range(BLOCKS)]
    blocks.clear()
    freed = resident()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return freed - before, resident() - before


@needs_glibc
def test_blocks_are_used_again():
    kept, faults = in_a_fork(keep_and_count)

    assert kept
    assert faults < 0.1


@needs_glibc
def test_by_default_every_page_is_new():
    assert in_a_new_program(share_of_faults) > 0.9


@needs_glibc
def test_old_glibc_refuses_the_threshold(monkeypatch):
    """It accepts 32 MiB at most; then blocks of all sizes are kept."""

    class Old:
        def __init__(self, libc):
            self.libc = libc

        def __getattr__(self, name):
            return getattr(self.libc, name)

        def mallopt(self, parameter, value):
            threshold = parameter == allocator._M_MMAP_THRESHOLD
            if threshold and value > 2**25:
                return 0
            return self.libc.mallopt(parameter, value)

    old = Old(ctypes.CDLL(None))
    monkeypatch.setattr(allocator.ctypes, 'CDLL', lambda name: old)

    kept, faults = in_a_fork(keep_and_count)

    assert kept
    assert faults < 0.1


@needs_glibc
@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('MMTRANSXNET_KEEP_MEMORY', '0'),
        ('MALLOC_MMAP_THRESHOLD_', '4194304'),
        ('MALLOC_TRIM_THRESHOLD_', '4194304'),
        ('GLIBC_TUNABLES', 'glibc.malloc.trim_threshold=4194304'),
    ],
)
def test_settings_of_the_user_win(name, value):
    kept, faults = in_a_new_program(keep_and_count, **{name: value})

    assert not kept
    assert faults > 0.9


@needs_glibc
def test_other_tunables_are_no_objection():
    tunables = 'glibc.malloc.arena_max=2'
    assert in_a_fork(keep_freed_memory, GLIBC_TUNABLES=tunables)


def test_invalid_switch():
    with pytest.raises(UserError, match='=yes: expected 1'):
        in_a_fork(keep_freed_memory, MMTRANSXNET_KEEP_MEMORY='yes')


@needs_glibc
def test_kept_memory_is_returned_before_a_fork():
    """Otherwise each worker of a data loader would hold it."""

    kept, after = in_a_new_program(keep_free_and_fork)

    assert kept > 0.9 * BLOCKS * BLOCK
    assert after < 0.1 * BLOCKS * BLOCK


@pytest.mark.parametrize('libc', [('', ''), ('musl', '1.2.5')])
def test_another_c_library_is_left_alone(monkeypatch, libc):
    monkeypatch.setattr(platform, 'libc_ver', lambda: libc)
    # Not even looked at: it may lack what glibc has.
    monkeypatch.delattr(allocator.ctypes, 'CDLL')

    assert not keep_freed_memory()


@needs_glibc
def test_another_allocator_is_left_alone(monkeypatch):
    class Preloaded:
        """As with LD_PRELOAD: malloc is not that of the C library."""

        malloc = ctypes.pythonapi.PyErr_CheckSignals
        dladdr = ctypes.CDLL(None).dladdr
        gnu_get_libc_version = ctypes.CDLL(None).gnu_get_libc_version

    monkeypatch.setattr(allocator.ctypes, 'CDLL', lambda name: Preloaded)

    assert not keep_freed_memory()

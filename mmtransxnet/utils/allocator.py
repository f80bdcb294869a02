"""Freed memory that stays with the process, on CPUs.

By default, glibc returns large blocks to the system as soon as they are
freed. A network frees and requests the same ones in each step; then the
system clears every page again, at a page fault each.
"""

import ctypes
import logging
import os
import platform
from typing import Any

from mmtransxnet.utils.errors import UserError

SWITCH = 'MMTRANSXNET_KEEP_MEMORY'
"""Environment variable; 0 leaves the allocator as it is."""

# Of malloc.h. Blocks above the first threshold are returned when freed; the
# heap is cut when more than the second is free at its end.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_LARGEST_BLOCK = 2**30
_LARGEST_END = 2**31 - 1  # of an int

# Settings of the user that are about the same.
_VARIABLES = (
    'MALLOC_MMAP_MAX_',
    'MALLOC_MMAP_THRESHOLD_',
    'MALLOC_TOP_PAD_',
    'MALLOC_TRIM_THRESHOLD_',
)
_TUNABLES = tuple(
    f'glibc.malloc.{name.removeprefix("MALLOC_").rstrip("_").lower()}'
    for name in _VARIABLES
)

_kept = False


class _Symbol(ctypes.Structure):
    """Where a function is defined: Dl_info of dlfcn.h."""

    _fields_ = [
        ('file', ctypes.c_char_p),
        ('base', ctypes.c_void_p),
        ('name', ctypes.c_char_p),
        ('address', ctypes.c_void_p),
    ]


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step, instead of returning it.

    Applies to the whole process and cannot be undone. Memory is still
    returned before a fork, so that workers of data loaders do not inherit
    it. The results of computations do not change.

    Nothing is done with another allocator than glibc's, if the environment
    has settings for it (``MALLOC_TRIM_THRESHOLD_``, ...), or
    ``MMTRANSXNET_KEEP_MEMORY=0``.

    Returns:
        Whether freed memory is kept.

    Raises:
        UserError: The environment variable is neither 0 nor 1.
    """
    global _kept
    reason = _reason_against()
    if reason:
        logging.getLogger(__name__).debug('allocator unchanged: %s', reason)
        return False
    if not _kept:
        _set_thresholds()
        _kept = True
    return True


def _reason_against() -> str | None:
    """Why the allocator must or can not be changed, if so."""
    value = os.environ.get(SWITCH, '1')
    if value not in ('0', '1'):
        raise UserError(
            f'{SWITCH}={value}: expected 1 (keep freed memory) or 0 (do not)'
        )
    if value == '0':
        return f'{SWITCH}=0'
    tunables = os.environ.get('GLIBC_TUNABLES', '')
    given = [name for name in _VARIABLES if name in os.environ]
    given += [name for name in _TUNABLES if name in tunables]
    if given:
        return f'{given[0]} is set'
    if platform.libc_ver()[0] != 'glibc':
        return 'the C library is not glibc'
    libc = ctypes.CDLL(None)
    file = _file_of(libc.malloc)
    if file != _file_of(libc.gnu_get_libc_version):
        return f'the allocator is that of {file}'
    return None


def _file_of(function: Any) -> str:
    """The library that defines a function of ctypes."""
    symbol = _Symbol()
    address = ctypes.cast(function, ctypes.c_void_p)
    ctypes.CDLL(None).dladdr(address, ctypes.byref(symbol))
    return os.fsdecode(symbol.file or b'')


def _set_thresholds() -> None:
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_END)
    if not libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK):
        # Older versions accept at most 32 MiB, or no such blocks at all.
        libc.mallopt(_M_MMAP_MAX, 0)
    # A child keeps all pages it has inherited as soon as its parent writes
    # to them again.
    os.register_at_fork(before=lambda: libc.malloc_trim(0))

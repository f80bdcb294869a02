"""Errors that the user can fix, reported without a traceback."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from mmtransxnet.utils.text import shorten

# Methods of mmengine's Runner, and the parts of the config they build.
_BUILDERS = dict(
    build_train_loop='train_cfg, train_dataloader',
    build_val_loop='val_cfg, val_dataloader, val_evaluator',
    build_test_loop='test_cfg, test_dataloader, test_evaluator',
    build_optim_wrapper='optim_wrapper',
    build_param_scheduler='param_scheduler',
    build_model='model',
    build_visualizer='visualizer',
    build_log_processor='log_processor',
    register_default_hooks='default_hooks',
    register_custom_hooks='custom_hooks',
    setup_env='env_cfg',
    set_randomness='randomness',
    from_cfg='the settings of the run',
    build_from_cfg='a part of the config',
)


STATUS = 2
"""Exit status after an error that the user can fix."""


class UserError(Exception):
    """Bad input; the message names the thing and the remedy."""


class CheckpointError(UserError, ValueError):
    """A weight file that is missing, unreadable or does not match."""


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn user errors into a message and exit status 2.

    These are :class:`UserError` and all errors raised while mmengine builds a
    part of the config. All other errors keep their traceback.
    """
    try:
        yield
    except UserError as error:
        _exit(line_of(error))
    # Constructors raise many kinds of errors for invalid arguments.
    except Exception as error:
        part = _part_being_built(error.__traceback__)
        if part is None:
            raise
        _exit(f'{part} cannot be built: {in_a_line(error)}')


def _exit(message: str) -> None:
    print_error(message)
    sys.exit(STATUS)


def print_error(message: str) -> None:
    """Print an error message and flush it."""
    sys.stderr.write(f'error: {message}\n')
    sys.stderr.flush()


def line_of(error: UserError) -> str:
    """Return the message of the original error.

    mmengine's registries prepend text to it; from a worker of a DataLoader
    comes a traceback that ends with it.
    """
    first: BaseException = error
    # An error raised ``from`` another has the better message.
    while first.__cause__ is None and isinstance(first.__context__, UserError):
        first = first.__context__
    return str(first).rpartition(f'{UserError.__name__}: ')[2].strip()


def in_a_line(error: BaseException) -> str:
    """Type, message and origin of an exception in one line."""
    text = shorten(str(error), 400)
    frames = traceback.extract_tb(error.__traceback__)
    place = f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {text}{place}'


def _part_being_built(trace: TracebackType | None) -> str | None:
    """The part of the config that was being built when an error occurred."""
    parts = [
        _BUILDERS[frame.f_code.co_name]
        for frame, _ in traceback.walk_tb(trace)
        if frame.f_code.co_name in _BUILDERS
        and frame.f_globals['__name__'].startswith('mmengine.')
    ]
    # Outer frames name general parts, inner frames specific ones.
    specific = [part for part in parts if part != _BUILDERS['build_from_cfg']]
    candidates = specific or parts
    return candidates[-1] if candidates else None

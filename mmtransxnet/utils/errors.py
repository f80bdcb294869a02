"""Errors that the user can mend, reported without a traceback."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from mmtransxnet.utils.text import shorten

# Methods of mmengine's Runner, and what of the config they build.
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
"""Exit status after an error that the user can mend."""


class UserError(Exception):
    """Bad input; the message names the thing and the remedy."""


class CheckpointError(UserError, ValueError):
    """A file of weights that is missing, not readable or does not fit."""


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn errors of the user's into a message and exit status 2.

    These are :class:`UserError`, and whatever a part of the config raises
    while mmengine builds it. Everything else keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        _exit(line_of(error))
    # Constructors raise almost anything for what they cannot use.
    except Exception as error:
        part = _part_being_built(error.__traceback__)
        if part is None:
            raise
        _exit(f'{part} cannot be built: {in_a_line(error)}')


def _exit(message: str) -> None:
    tell(message)
    sys.exit(STATUS)


def tell(message: str) -> None:
    """Print an error of the user's, at once."""
    sys.stderr.write(f'error: {message}\n')
    sys.stderr.flush()


def line_of(error: UserError) -> str:
    """What was said first.

    mmengine's registries put words before it; from a worker of a DataLoader
    comes a text that ends with it.
    """
    first: BaseException = error
    # What is raised ``from`` another says more than that.
    while first.__cause__ is None and isinstance(first.__context__, UserError):
        first = first.__context__
    return str(first).rpartition(f'{UserError.__name__}: ')[2].strip()


def in_a_line(error: BaseException) -> str:
    """What an exception says, and where it comes from."""
    text = shorten(str(error), 400)
    frames = traceback.extract_tb(error.__traceback__)
    place = f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {text}{place}'


def _part_being_built(trace: TracebackType | None) -> str | None:
    """The part of the config that was built when an exception came."""
    parts = [
        _BUILDERS[frame.f_code.co_name]
        for frame, _ in traceback.walk_tb(trace)
        if frame.f_code.co_name in _BUILDERS
        and frame.f_globals['__name__'].startswith('mmengine.')
    ]
    # The whole is named first, what is special in it later.
    special = [one for one in parts if one != _BUILDERS['build_from_cfg']]
    found = special or parts
    return found[-1] if found else None

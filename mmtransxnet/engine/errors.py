"""Errors that the user can mend, told without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input; the message names the thing and the remedy."""


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn a :class:`UserError` into its message and exit status 2."""
    try:
        yield
    except UserError as error:
        sys.stderr.write(f'error: {_line(error)}\n')
        sys.exit(2)


def _line(error: BaseException) -> str:
    """What was said first.

    mmengine's registries put words before it; from a worker of a DataLoader
    comes a text that ends with it.
    """
    while isinstance(error.__context__, UserError):
        error = error.__context__
    return str(error).rpartition(f'{UserError.__name__}: ')[2].strip()

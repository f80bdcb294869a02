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
        sys.stderr.write(f'error: {error}\n')
        sys.exit(2)

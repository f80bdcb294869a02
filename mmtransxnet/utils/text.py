"""Formatting of messages."""

from collections.abc import Sequence


def first_few(
    names: Sequence[str], most: int = 3, separator: str = ', '
) -> str:
    """Join the first few of many names."""
    more = ['...'] if len(names) > most else []
    return separator.join([*names[:most], *more])


def shorten(text: str, most: int = 120) -> str:
    """Shorten a text to a number of characters in one line."""
    line = ' '.join(text.split())
    return line if len(line) <= most else f'{line[: most - 3]}...'

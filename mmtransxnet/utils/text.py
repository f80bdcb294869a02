"""Texts for messages."""

from collections.abc import Sequence


def first_few(
    names: Sequence[str], most: int = 3, separator: str = ', '
) -> str:
    """The first of many names, for a message."""
    more = ['...'] if len(names) > most else []
    return separator.join([*names[:most], *more])


def shorten(text: str, most: int = 120) -> str:
    """A text of at most so many characters, in one line."""
    line = ' '.join(text.split())
    return line if len(line) <= most else f'{line[: most - 3]}...'

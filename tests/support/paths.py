"""Where the project and its test data are."""

from pathlib import Path

DATA = Path(__file__).parents[1] / 'data'


GOLDEN = DATA / 'golden'


ROOT = Path(__file__).parents[2]

"""Files to load, made once."""

import pytest

from tests.support.published_files import FORMATS, classification_state


@pytest.fixture(scope='session')
def state():
    """Weights of a published classifier at micro size."""
    return classification_state()


@pytest.fixture(scope='session')
def files(state, tmp_path_factory):
    """One file of each format with these weights."""
    folder = tmp_path_factory.mktemp('published')
    paths = {}
    for number, (name, write) in enumerate(FORMATS.items()):
        # As the release calls its files, whatever is in them.
        paths[name] = str(folder / f'{number}.pth.tar')
        write(dict(state), paths[name])
    return paths

"""Tests that ask for a config get every one."""

import pytest
from tests.support.suite_configs import CONFIGS, load


def pytest_generate_tests(metafunc):
    """Run every test that asks for a ``path`` on every config."""
    if 'path' in metafunc.fixturenames:
        names = [path.stem for path in CONFIGS]
        metafunc.parametrize('path', CONFIGS, ids=names)


@pytest.fixture
def config(path):
    return load(path)

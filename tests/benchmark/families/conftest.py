"""The command's modules, importable as it imports them."""

import sys

import pytest

from tests.support.paths import ROOT

sys.path.append(str(ROOT / 'tools/benchmark'))

from zoo import LIBRARIES, import_library


@pytest.fixture(scope='session', autouse=True)
def _libraries():
    """Every trial is a fork that has all of this."""
    for library in LIBRARIES:
        import_library(library)

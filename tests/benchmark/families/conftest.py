"""What every trial has: it is a fork of this process."""

import pytest

from mmtransxnet.benchmark.families.zoo import LIBRARIES, import_library


@pytest.fixture(scope='session', autouse=True)
def _libraries():
    for library in LIBRARIES:
        import_library(library)

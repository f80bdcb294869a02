"""Fixtures of the tests of the network."""

import pytest
from torch import nn


@pytest.fixture
def quick_init(monkeypatch):
    """Leave weights undrawn, where a test looks at names and shapes only.

    Drawing the 48 million of the base size takes longer than the test.
    """
    for name in ('trunc_normal_', 'kaiming_uniform_', 'kaiming_normal_'):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)

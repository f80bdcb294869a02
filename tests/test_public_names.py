"""A name of the package is one thing: a module, or what a user calls."""

import importlib
import pkgutil
import sys
from types import ModuleType

import pytest

import mmtransxnet

pytestmark = pytest.mark.distribution


def test_nothing_hides_a_module():
    """``import a.b.c`` and ``a.b.c`` are the same."""
    names = [
        module.name
        for module in pkgutil.walk_packages(
            mmtransxnet.__path__, 'mmtransxnet.'
        )
    ]
    assert len(names) > 60
    hidden = []
    for name in names:
        importlib.import_module(name)
        parent, _, leaf = name.rpartition('.')
        if getattr(sys.modules[parent], leaf) is not sys.modules[name]:
            hidden.append(name)
    assert not hidden


def test_the_package_has_no_names_of_its_parts():
    """No hook's module is at hand as ``mmtransxnet.fold``."""
    for name, value in vars(mmtransxnet).items():
        if isinstance(value, ModuleType):
            assert value.__name__ == f'mmtransxnet.{name}'


def test_fold_is_a_function():
    from mmtransxnet.models import fold

    assert callable(fold)
    assert mmtransxnet.models.fold is fold

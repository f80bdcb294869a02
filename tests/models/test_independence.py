"""The network stands without any of the task packages."""

import ast

import pytest

from tests.support.paths import ROOT
from tests.support.tools import run_python

TASKS = ('mmdet', 'mmseg', 'mmpretrain')
SOURCES = sorted(
    path
    for room in ('kernels', 'models')
    for path in (ROOT / 'mmtransxnet' / room).rglob('*.py')
)

FORWARD = """
import torch
import mmtransxnet
from mmengine.registry import MODELS
arch = dict(layers=[1] * 4, embed_dims=[8] * 4, kernel_size=[3] * 4,
            num_groups=[2] * 4, sr_ratio=[8, 4, 2, 1], num_heads=[1] * 4,
            mlp_ratios=[2] * 4)
model = MODELS.build(dict(type='TransXNet', arch=arch))
outs = model(torch.zeros(2, 3, 32, 32))
assert len(outs) == 4
"""

BLOCK = f"""
import sys


class Missing:
    attempts = []

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {TASKS!r}:
            self.attempts.append(name)
            raise ModuleNotFoundError(f'No module named {{name!r}}')


sys.meta_path.insert(0, Missing())
"""


# rich is not among them: mmengine itself needs it.
WITHOUT_EXTRAS = """
import sys

sys.modules.update(sklearn=None, pycocotools=None)
import mmtransxnet.apis
import mmtransxnet.datasets
"""


def test_works_where_no_task_package_is_installed():
    """And does not even ask for one where there is: none is imported."""
    printed = run_python(
        f'{BLOCK}{FORWARD}print("asked for:", Missing.attempts)'
    )
    assert 'asked for: []' in printed.splitlines()


def test_works_without_extras():
    printed = run_python(f'{WITHOUT_EXTRAS}{FORWARD}print(len(outs))')
    assert printed.splitlines()[-1] == '4'


def test_there_are_sources():
    assert ROOT / 'mmtransxnet' / 'models' / 'transxnet.py' in SOURCES


@pytest.mark.parametrize(
    'path', SOURCES, ids=lambda p: f'{p.parent.name}-{p.stem}'
)
def test_sources_name_no_task_package(path):
    """Not even inside a function, where an import hides from a run."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module.split('.')[0])
    assert not named & set(TASKS)

"""Data sets that are not ours: checked as far as known, and trained on."""

import importlib.util
import math
import sys
from pathlib import Path

import foreign
import pytest
from helpers import ROOT

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import UserError, inspect_layout, load_config
from mmtransxnet.engine.deep_check import DeepCheck

pytestmark = pytest.mark.distribution

# The folders are the list, or nobody knows which files there are to be.
NO_FILE_LISTED = (
    'label_numbers_of_the_owner',
    'colours_as_labels',
    'coco_behind_a_backend',
    'crowdhuman',
    'boxes_in_a_table',
    'folders_in_class_folders',
    'cifar',
    'birds',
    'tensors',
)


@pytest.fixture(scope='module')
def train():
    """What tools/train.py does, in this process."""
    path = ROOT / 'tools/train.py'
    spec = importlib.util.spec_from_file_location('tool_train', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    foreign.register_subclass()

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', ['train.py', *map(str, arguments)])
            foreign.LOSSES.clear()
            tool.train(tool.parse_args())
        return list(foreign.LOSSES)

    return run


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a data set and its config; return both."""

    def write(name):
        root = tmp_path / 'data'
        root.mkdir()
        builder = foreign.LAYOUTS[name]
        needs = builder.__code__.co_argcount > 1
        made = builder(root, monkeypatch) if needs else builder(root)
        return made, foreign.write_config(tmp_path / f'{name}.py', made)

    return write


@pytest.fixture
def notes(monkeypatch):
    """What is noted before a run."""
    found = []
    monkeypatch.setattr(
        'mmtransxnet.engine.preflight.print_log',
        lambda note, *_, **__: found.append(note),
    )
    return found


@pytest.mark.parametrize('name', foreign.LAYOUTS)
def test_a_step_is_trained(train, make, notes, tmp_path, name):
    """And what was not looked at is told in one line."""
    made, path = make(name)
    (loss,) = train(path, '--work-dir', tmp_path / 'work')
    assert math.isfinite(loss)
    unchecked = [note for note in notes if 'not checked' in note]
    assert len(unchecked) == bool(made.unchecked), unchecked
    assert all(made.unchecked in note for note in unchecked)


@pytest.mark.parametrize('name', foreign.LAYOUTS)
def test_nothing_is_found_wrong(make, name):
    """By tools/dataset/check.py --deep, which looks at what it can."""
    made, path = make(name)
    foreign.register_subclass()
    config = load_config(str(path))
    assert [one.problems for one in inspect_layout(config, ['train'])] == [
        [] for _ in range(2 if name == 'voc_detection' else 1)
    ]
    check = DeepCheck(config)
    assert check.problems == []
    assert list(check.judge(1)) == [None] * made.judged
    assert bool(check.unchecked) == (made.judged == 0)


@pytest.mark.parametrize(
    'name', [name for name in foreign.LAYOUTS if name not in NO_FILE_LISTED]
)
def test_a_missing_file_is_told(train, make, tmp_path, name):
    """It is listed, and not there."""
    made, path = make(name)
    (tmp_path / 'data' / made.vital).unlink()
    with pytest.raises(UserError) as caught:
        train(path, '--work-dir', tmp_path / 'work')
    assert Path(made.vital).name in str(caught.value)
    assert '--no-check' in str(caught.value)

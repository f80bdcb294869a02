"""Data sets that are not ours: checked as far as known, and trained on."""

import math

import pytest
from PIL import Image

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import (
    UserError,
    check_data,
    inspect_layout,
    load_config,
)
from mmtransxnet.engine.checks.deep_check import DeepCheck
from mmtransxnet.engine.runner.train import train, train_parser
from tests.support import foreign_data

pytestmark = pytest.mark.distribution


@pytest.fixture(scope='module')
def run_train():
    """What tools/train.py does, in this process."""
    foreign_data.register_subclass()

    def run(*arguments):
        foreign_data.LOSSES.clear()
        flags = map(str, arguments)
        train(train_parser('').parse_args(list(flags)))
        return list(foreign_data.LOSSES)

    return run


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a data set and its config; return both."""

    def write(name):
        root = tmp_path / 'data'
        root.mkdir()
        builder = foreign_data.LAYOUTS[name]
        needs = builder.__code__.co_argcount > 1
        made = builder(root, monkeypatch) if needs else builder(root)
        return made, foreign_data.write_config(tmp_path / f'{name}.py', made)

    return write


@pytest.fixture
def notes(monkeypatch):
    """What is noted before a run."""
    found = []
    monkeypatch.setattr(
        'mmtransxnet.engine.checks.preflight.print_log',
        lambda note, *_, **__: found.append(note),
    )
    return found


@pytest.mark.parametrize('name', foreign_data.LAYOUTS)
def test_a_step_is_trained(run_train, make, notes, tmp_path, name):
    """And what was not looked at is told in one line."""
    made, path = make(name)
    (loss,) = run_train(path, '--work-dir', tmp_path / 'work')
    assert math.isfinite(loss)
    unchecked = [note for note in notes if 'not checked' in note]
    assert len(unchecked) == bool(made.unchecked), unchecked
    assert all(made.unchecked in note for note in unchecked)


@pytest.mark.parametrize('name', foreign_data.LAYOUTS)
def test_nothing_is_found_wrong(make, name):
    """By tools/dataset/check.py --deep, which looks at what it can."""
    made, path = make(name)
    foreign_data.register_subclass()
    config = load_config(str(path))
    assert [one.problems for one in inspect_layout(config, ['train'])] == [
        [] for _ in range(2 if name == 'voc_detection' else 1)
    ]
    check = DeepCheck(config)
    assert check.problems == []
    assert list(check.run(1)) == [None] * made.judged
    assert bool(check.unchecked) == (made.judged == 0)


KNOWN = (
    'cityscapes',
    'voc_segmentation',
    'ignored_label_of_the_owner',
    'classes_not_named',
    'voc_detection',
    'coco_nested',
    'names_and_labels',
    'imagenet_with_names',
    'several_labels',
)


@pytest.mark.parametrize('name', KNOWN)
def test_a_missing_file_is_told(make, tmp_path, name):
    """Of what is known, what is listed is looked for."""
    made, path = make(name)
    config = load_config(str(path))
    check_data(config, ['train'])
    assert made.vital
    for vital in made.vital:
        lost = tmp_path / 'data' / vital
        lost.rename(lost.with_suffix('.lost'))
        with pytest.raises(UserError) as caught:
            check_data(config, ['train'])
        assert lost.name in str(caught.value)
        lost.with_suffix('.lost').rename(lost)
    check_data(config, ['train'])


def test_no_check_leaves_all_of_it_out(run_train, make, tmp_path):
    """Also of a picture that this recipe takes and others cannot."""
    _, path = make('folders_in_class_folders')
    Image.new('RGB', (900, 8)).save(tmp_path / 'data/dog/1.jpg')
    arguments = (path, '--work-dir', tmp_path / 'work')
    with pytest.raises(UserError, match='one side is more than'):
        run_train(*arguments)
    (loss,) = run_train(*arguments, '--no-check')
    assert math.isfinite(loss)

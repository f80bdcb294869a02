"""Models of mmdet, mmseg and mmpretrain: a step, a prediction, ours inside."""

import json
import os
import re
import signal
import time

import pytest

from mmtransxnet.benchmark.families import trials, walk
from mmtransxnet.benchmark.families.tables import write_tables
from mmtransxnet.benchmark.families.trials import FINE, attempt, isolated
from mmtransxnet.benchmark.families.zoo import (
    CHOSEN,
    LIBRARIES,
    Family,
    Unsupported,
    list_families,
    train_step,
)
from mmtransxnet.engine import UserError
from tests.support.paths import ROOT

# What each depends on that others do not. The walk through all of them is
# the command's; docs/families.md has what it found.
TRIED = {
    'mmdet/carafe': 'carafe',
    'mmdet/dyhead': 'modulated_deform_conv2d with larger offsets',
    'mmdet/dcn': 'deform_conv2d',
    'mmdet/deformable_detr': 'ms_deform_attn',
    'mmdet/sparse_rcnn': 'roi_align of inverted boxes',
    'mmdet/yolo': 'channels in descending order',
    'mmseg/fcn': 'dilated backbone, auxiliary head, no neck',
    'mmpretrain/mobilenet_v2': 'neck that only pools',
    'mmpretrain/mocov2': 'views of self-supervision',
}


def find(name):
    return Family(*name.split('/'))


@pytest.mark.parametrize('name', TRIED)
def test_trains_a_step_and_predicts(name):
    found = isolated(find(name), limit=300, memory=16)
    assert (found['step'], found['transxnet']) == (FINE, FINE)
    # What learns by itself predicts nothing.
    assert found['prediction'] == ('' if 'moco' in name else FINE)


def test_chosen_configs_are_there():
    for name, config in CHOSEN.items():
        assert find(name).configs()[0] == config


@pytest.mark.parametrize('library', LIBRARIES)
def test_every_installed_family_is_in_the_table(library):
    """A new one has to be tried: tools/benchmark/families.py."""
    page = (ROOT / 'docs/families.md').read_text()
    part = re.search(
        rf'<!-- families: {library} -->(.*?)<!-- end -->', page, re.DOTALL
    )[1]
    rows = re.findall(r'^\| (\S+) \|', part, re.MULTILINE)
    names = [family.name for family in list_families(library)]
    assert rows[1:] == sorted(names)
    counts = [int(n) for n in re.findall(r'\*\*(\d+)\*\*', part)]
    cells = [line.split(' | ') for line in part.splitlines()]
    for count, column in zip(counts, (3, 5), strict=True):
        fine = [
            c for c in cells if len(c) > 5 and c[column].strip('| ') == FINE
        ]
        assert len(fine) == count


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('mmdet/bytetrack', 'takes videos'),
        ('mmdet/common', 'holds no config with a model'),
        ('mmdet/glip', 'transformers'),
        ('mmpretrain/blip2', 'takes pictures with text'),
    ],
)
def test_reasons_are_found_not_listed(name, reason):
    found = isolated(find(name), limit=300, memory=16)
    assert reason in found['step']
    assert 'transxnet' not in found


def test_a_loss_that_is_not_finite_is_no_step():
    import torch

    class Model(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.factor = factor

        def data_preprocessor(self, data, training):
            return data

        def forward(self, mode):
            return self.factor * self.weight.sqrt().sum()

        def parse_losses(self, loss):
            return loss, {}

    with pytest.raises(ArithmeticError, match='the loss is nan'):
        train_step(Model(float('nan')), {})
    # The root's derivative at zero is not.
    with pytest.raises(ArithmeticError, match='gradient of weight is not'):
        train_step(Model(1.0), {})


@pytest.fixture
def instead(monkeypatch):
    """Let every trial run a function of the test."""

    def replace(function):
        monkeypatch.setattr(trials, 'try_family', function)

    return replace


def test_a_trial_has_a_time_limit(instead):
    instead(lambda family, results: time.sleep(600))
    found = isolated(find('mmdet/yolo'), limit=1, memory=16)
    assert found['step'] == 'takes longer than 1 s'


def test_a_trial_may_die(instead):
    instead(lambda family, results: os.kill(os.getpid(), signal.SIGKILL))
    found = isolated(find('mmdet/yolo'), limit=300, memory=16)
    assert found['step'] == f'ends with exit status {-signal.SIGKILL}'


def test_a_trial_may_die_with_ours_inside(instead):
    def half(family, results):
        results.send(dict(step=FINE, size=160, config='c', prediction=FINE))
        os._exit(3)

    instead(half)
    found = isolated(find('mmdet/yolo'), limit=300, memory=16)
    assert found['step'] == FINE
    assert found['transxnet'] == 'ends with exit status 3'


def test_a_trial_has_a_memory_limit(instead):
    def large(family, results):
        results.send(dict(step=attempt(lambda: bytearray(64 * 2**30))))

    instead(large)
    found = isolated(find('mmdet/yolo'), limit=300, memory=16)
    assert found['step'].startswith('MemoryError')


def test_reasons_fit_into_a_table():
    def fail():
        raise ValueError('a | b\n' + 300 * 'c')

    assert len(attempt(fail)) == 140
    assert attempt(fail).startswith('ValueError: a / b ccc')

    def miss():
        raise OSError('/home/me/a.py and https://some.where/else/b.pth and/or')

    assert attempt(miss) == 'OSError: a.py and b.pth and/or'

    def refuse():
        raise Unsupported('takes videos')

    assert attempt(refuse) == 'takes videos'


def test_known_results_are_kept(tmp_path, monkeypatch):
    """What was tried is not tried again, unless that is asked for."""
    tried = []

    def trial(family, limit, memory):
        tried.append(family.name)
        return dict(step=FINE, size=160, config='c', seconds=1, transxnet='no')

    monkeypatch.setattr(walk, 'isolated', trial)
    lines = []

    def run(*names, again=False, minutes=None):
        tried.clear()
        walk.try_all(
            walk.select(names), tmp_path, again=again, minutes=minutes,
            limit=1, memory=1, report=lines.append,
        )  # fmt: skip
        return list(tried)

    names = ('mmdet/yolo', 'mmdet/ssd')
    assert run('mmdet/yolo') == ['yolo']
    assert run(*names) == ['ssd']
    assert run(*names) == []
    assert run(*names, again=True) == ['ssd', 'yolo']
    assert lines[-1] == '2/2 mmdet/yolo 1 s: yes; TransXNet-T: no'
    assert run('mmdet', minutes=-1) == []
    assert lines[-1] == '-1 minutes are over'
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- families: mmdet -->\nold\n<!-- end -->\nb\n')
    write_tables(page, tmp_path)
    text = page.read_text()
    assert '2 families of mmdet: **2** train a step as they are, **0**' in text
    assert '| ssd | c | 160 | yes | none | no |' in text
    assert 'mmengine' in text
    assert 'old' not in text
    assert text.endswith('<!-- end -->\nb\n')
    path = tmp_path / 'mmdet.json'
    results = json.loads(path.read_text())
    assert set(results['families']) == {'ssd', 'yolo'}
    results['made']['versions'][0] = 'torch 1.0'
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=r'mmdet\.json is of other packages'):
        run('mmdet')


def test_names_that_nothing_has():
    with pytest.raises(UserError, match="'mmdet/yolow' is neither a library"):
        walk.select(['mmdet/yolow'])

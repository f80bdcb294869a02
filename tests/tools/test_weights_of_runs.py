"""Published and malicious files through tools/train.py and tools/test.py."""

import json
import os
import sys

import pytest
import torch

from tests.support.published_files import classification_state
from tests.support.tools import environment, run


class Intruder:
    """Pickles to a call, as a malicious file would."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, 'w')


@pytest.fixture
def classifier_config(configs):
    return configs['classifier']


def published(**more):
    """A published classifier's training checkpoint, for the tiny config."""
    return dict(state_dict=classification_state(image_size=96), **more)


# The tools one after the other, in a process of their own.
CALLS = """
import json, runpy, sys
for tool, *arguments in json.loads(sys.argv[1]):
    sys.argv = [tool, *arguments]
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as stop:
        print('stopped with', stop.code, file=sys.stderr)
"""


def test_a_malicious_file_is_refused(digits, tmp_path, classifier_config):
    """As what a run starts from, loads or resumes, and to test."""
    bad, trace = str(tmp_path / 'bad.pth'), tmp_path / 'trace'
    meta = dict(epoch=0, iter=0)
    torch.save(published(meta=meta, more=Intruder(trace)), bad)
    train = ['tools/train.py', str(classifier_config)]
    where = ['--work-dir', str(tmp_path / 'run')]
    init_cfg = 'model.backbone.init_cfg'
    calls = [
        [
            *(*train, *where, '--cfg-options', f'{init_cfg}.type=Pretrained'),
            f'{init_cfg}.checkpoint={bad}',
        ],
        [*train, *where, '--cfg-options', f'load_from={bad}'],
        [*train, *where, '--resume', bad],
        ['tools/test.py', str(classifier_config), bad, *where],
    ]
    done = run(
        [sys.executable, '-c', CALLS, json.dumps(calls)],
        env=environment(digits),
    )
    told = done.stderr.splitlines()
    errors = [line for line in told if line.startswith('error: ')]
    assert len(errors) == len(calls), done.stderr
    assert all(f'{bad} cannot be read: refused' in line for line in errors)
    assert told.count('stopped with 2') == len(calls)
    assert 'Traceback' not in done.stderr
    assert not trace.exists()


def test_a_published_classifier_by_its_name(
    tool, tmp_path, classifier_config, monkeypatch
):
    """Tables of 96 pixels, in a model of 64."""
    monkeypatch.setitem(os.environ, 'TRANSXNET_WEIGHTS', str(tmp_path))
    torch.save(published(), tmp_path / 'transx-t.pth.tar')
    where = ['--work-dir', tmp_path / 'test']
    status, log = tool('test.py', classifier_config, 'transxnet://t', *where)
    assert status == 0, log
    assert 'Position tables resized' in log
    assert 'accuracy/top1' in log
    assert 'do not match exactly' not in log


def test_training_starts_from_a_published_classifier(
    tool, tmp_path, classifier_config
):
    """Of other classes: what may differ is allowed by name."""
    content = published()
    content['state_dict']['classifier.2.weight'] = torch.randn(7, 64, 1, 1)
    content['state_dict']['classifier.2.bias'] = torch.randn(7)
    torch.save(content, tmp_path / 'start.pth')
    status, log = tool(
        'train.py',
        *(classifier_config, '--work-dir', tmp_path / 'run', '--cfg-options'),
        f'load_from={tmp_path}/start.pth',
        "load_allow=['head.fc.*']",
        *('train_cfg.max_iters=1', 'train_cfg.val_interval=1'),
    )
    assert status == 0, log
    assert '2 of the model not in the file (allowed by name)' in log
    assert 'accuracy/top1' in log

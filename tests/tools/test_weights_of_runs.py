"""Published and malicious files through tools/train.py and tools/test.py."""

import os

import pytest
import torch
from helpers import MICRO
from tiny import write_configs

from mmtransxnet import TransXNet

pytestmark = pytest.mark.distribution

SHORT = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']


class Intruder:
    """Pickles to a call, as a malicious file would."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, 'w')


@pytest.fixture(scope='module')
def classifier_config(tmp_path_factory):
    return write_configs(tmp_path_factory.mktemp('configs'))[0]


def published(**more):
    """A published classifier's training checkpoint, for the tiny config."""
    model = TransXNet(MICRO, 96, out_indices=(3,))
    state = {
        name.replace('norm6.', 'classifier.0.'): value
        for name, value in model.state_dict().items()
    }
    state['classifier.2.weight'] = torch.randn(10, 64, 1, 1)
    state['classifier.2.bias'] = torch.randn(10)
    return dict(state_dict=state, **more)


def one_error(status, log):
    assert status == 2, log
    assert 'Traceback' not in log
    (line,) = [text for text in log.splitlines() if text.startswith('error:')]
    return line


ROUTES = {
    'init_cfg': lambda path: [
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={path}',
    ],
    'load_from': lambda path: ['--cfg-options', f'load_from={path}'],
    'resume': lambda path: ['--resume', path],
}


@pytest.mark.parametrize('route', ROUTES)
def test_training_refuses_a_malicious_file(
    tool, tmp_path, classifier_config, route
):
    bad, trace = tmp_path / 'bad.pth', tmp_path / 'trace'
    meta = dict(epoch=0, iter=0)
    torch.save(published(meta=meta, more=Intruder(trace)), bad)
    flags = ROUTES[route](bad)
    outcome = tool(
        'train.py', classifier_config, '--work-dir', tmp_path, *flags
    )
    assert 'refused' in one_error(*outcome)
    assert not trace.exists()


def test_testing_refuses_a_malicious_file(tool, tmp_path, classifier_config):
    bad, trace = tmp_path / 'bad.pth', tmp_path / 'trace'
    torch.save(published(more=Intruder(trace)), bad)
    outcome = tool('test.py', classifier_config, bad, '--work-dir', tmp_path)
    assert 'refused' in one_error(*outcome)
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
    torch.save(published(), tmp_path / 'start.pth')
    start = f'load_from={tmp_path}/start.pth'
    flags = ['--work-dir', tmp_path / 'run', '--cfg-options', start, *SHORT]
    status, log = tool('train.py', classifier_config, *flags)
    assert status == 0, log
    assert 'do not match exactly' not in log


def test_a_new_head_must_be_allowed_by_name(tool, tmp_path, classifier_config):
    content = published()
    content['state_dict']['classifier.2.weight'] = torch.randn(7, 64, 1, 1)
    content['state_dict']['classifier.2.bias'] = torch.randn(7)
    torch.save(content, tmp_path / 'start.pth')
    start = f'load_from={tmp_path}/start.pth'
    flags = ['--work-dir', tmp_path / 'run', '--cfg-options', start, *SHORT]
    outcome = tool('train.py', classifier_config, *flags)
    assert 'head.fc.weight (7, 64) for (10, 64)' in one_error(*outcome)
    status, log = tool(
        'train.py', classifier_config, *flags, "load_allow=['head.fc.*']"
    )
    assert status == 0, log

"""Nothing in a file runs, and broken files are told from good ones."""

import argparse
import functools
import os
import pickle
import zipfile

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmtransxnet import TransXNet
from mmtransxnet.weights import load_weights
from mmtransxnet.weights.reader import read_checkpoint
from tests.support.models import MICRO
from tests.support.published_files import (
    SIZE,
    build,
    classifier,
    runner_dict,
    training_dict,
)

pytestmark = pytest.mark.distribution


class Call:
    """Pickles to a call, as a malicious file has it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def trace(tmp_path):
    """A file that exists once something has run."""
    return tmp_path / 'trace'


def payloads(trace):
    """Ways to run something from a file."""
    return {
        'open': Call(open, str(trace), 'w'),
        'system': Call(os.system, f'touch {trace}'),
        'eval': Call(eval, f'open({str(trace)!r}, "w")'),
        'in args': argparse.Namespace(run=Call(open, str(trace), 'w')),
        'partial': functools.partial(open, str(trace), 'w'),
    }


PAYLOADS = list(payloads('x'))


@pytest.fixture(params=PAYLOADS)
def malicious(request, tmp_path, trace, state):
    """A training dict with something to run beside its weights."""
    content = {**training_dict(state), 'args': payloads(trace)[request.param]}
    torch.save(content, tmp_path / 'bad.pth')
    return str(tmp_path / 'bad.pth')


def by_init_cfg(path):
    init_cfg = dict(type='Pretrained', checkpoint=path)
    TransXNet(MICRO, SIZE, init_cfg=init_cfg).init_weights()


def by_init_cfg_of_the_model(path):
    """Read by mmengine's own initialiser."""
    model = classifier()
    model.init_cfg = dict(type='Pretrained', checkpoint=path)
    model.init_weights()


def by_load_checkpoint(path):
    load_checkpoint(classifier(), path)


def by_load_weights(path):
    load_weights(TransXNet(MICRO, SIZE), path)


ROUTES = [
    read_checkpoint,
    by_load_weights,
    by_load_checkpoint,
    by_init_cfg,
    by_init_cfg_of_the_model,
]


@pytest.mark.parametrize('route', ROUTES)
def test_nothing_in_a_file_runs(malicious, trace, route):
    with pytest.raises(ValueError, match=r'bad\.pth cannot be read: refused'):
        route(malicious)
    assert not trace.exists()


def test_the_intruder_would_run(malicious, trace):
    """The file is what it seems to be: read carelessly, it runs."""
    content = torch.load(malicious, weights_only=False)
    if callable(content['args']):
        content['args']()
    assert trace.exists()


def test_getattr_reaches_nothing_but_statistics(tmp_path):
    path = tmp_path / 'bad.pth'
    torch.save(dict(args=Call(getattr, HistoryBuffer, '__init__')), path)
    with pytest.raises(ValueError, match='must not ask for'):
        read_checkpoint(path)


def test_what_a_pickle_of_its_own_holds_does_not_run(tmp_path, trace):
    """Not written by torch at all."""
    path = tmp_path / 'bad.pth'
    path.write_bytes(pickle.dumps(Call(open, str(trace), 'w')))
    with pytest.raises(ValueError, match='cannot be read'):
        by_load_checkpoint(str(path))
    assert not trace.exists()


def test_other_schemes_of_mmengine_are_forced_too(malicious, trace, tmp_path):
    """Their loaders are mmengine's, with the check that it leaves out."""

    def load_from_nowhere(filename, map_location=None):
        return torch.load(malicious, map_location, weights_only=False)

    from mmtransxnet.weights import mmengine_loaders as loaders

    schemes = dict(CheckpointLoader._schemes)
    try:
        CheckpointLoader.register_scheme('nowhere://', load_from_nowhere)
        loaders.install()
        with pytest.raises(pickle.UnpicklingError):
            load_checkpoint(classifier(), 'nowhere://file')
    finally:
        CheckpointLoader._schemes = schemes
    assert not trace.exists()
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_every_scheme_is_ours():
    assert {'', 'http://', 'https://'} < set(CheckpointLoader._schemes)
    for scheme, loader in CheckpointLoader._schemes.items():
        assert loader.__code__.co_filename.endswith('loaders.py'), scheme


def test_the_allow_list_is_for_one_file(files):
    """What others load with torch is not for us to decide."""
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(files['training dict'])
    assert set(torch.serialization.get_safe_globals()) == before


def test_what_the_user_allowed_stays_allowed(files):
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_checkpoint(files['training dict'])
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_arguments_are_plain_data(tmp_path, state):
    odd = argparse.Namespace(lr=1.0, more={'history': HistoryBuffer()})
    torch.save({**training_dict(state), 'args': odd}, tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match=r'args\.more is a dict'):
        read_checkpoint(tmp_path / 'odd.pth')


@pytest.mark.parametrize('module', ['numpy.core', 'numpy._core'])
def test_arrays_of_either_numpy(tmp_path, state, module):
    """A file names the module of the numpy that wrote it."""
    import numpy as np

    path = tmp_path / 'new.pth'
    content = {**runner_dict(state), 'metric': np.float64(81.6)}
    torch.save(content, path)
    old = tmp_path / 'old.pth'
    pattern = b'numpy._core.multiarray', b'numpy.core.multiarray'
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):
                for one in pattern:
                    data = data.replace(one, f'{module}.multiarray'.encode())
                assert f'{module}.multiarray'.encode() in data
            target.writestr(name, data)
    read = read_checkpoint(old)
    assert read['metric'] == 81.6
    assert read['message_hub']['log_scalars']['train/loss'].mean() == 0.5


# ------------------------------------------------------------ broken files
def truncated(path):
    size = path.stat().st_size
    with path.open('r+b') as file:
        file.truncate(size // 2)


def empty(path):
    path.write_bytes(b'')


def web_page(path):
    path.write_text('\n<!DOCTYPE html><html>404: Not Found</html>')


def not_there(path):
    path.unlink()


def a_list(path):
    torch.save([torch.zeros(1)], path)


def nothing_in_it(path):
    torch.save(dict(epoch=3), path)


def nan(path):
    content = torch.load(path, weights_only=False)
    content['state_dict']['classifier.0.bias'][1] = float('nan')
    torch.save(content, path)


def other_size(path):
    model = TransXNet({**MICRO, 'embed_dims': [32, 32, 48, 64]}, SIZE)
    torch.save(model.state_dict(), path)


def other_network(path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), path)


BROKEN = [
    (truncated, 'damaged, cut short'),
    (empty, 'is empty'),
    (web_page, 'is a web page'),
    (not_there, 'is not a file'),
    (a_list, 'holds a list'),
    (nan, r'holds NaN in classifier\.0\.bias'),
    (other_size, r'of another shape: patch_embed'),
]


@pytest.mark.parametrize('route', ROUTES[1:])
@pytest.mark.parametrize(('damage', 'message'), BROKEN)
def test_broken_files(tmp_path, state, route, damage, message):
    path = tmp_path / 'broken.pth.tar'
    copied = {name: value.clone() for name, value in state.items()}
    torch.save(training_dict(copied), path)
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        route(str(path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('route', [by_load_weights, by_init_cfg])
@pytest.mark.parametrize('damage', [other_network, nothing_in_it])
def test_files_of_other_networks(tmp_path, route, damage):
    damage(tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='does not fit TransXNet'):
        route(str(tmp_path / 'other.pth'))


def test_a_broken_safetensors_file(files, tmp_path):
    from pathlib import Path

    data = Path(files['safetensors']).read_bytes()
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match='damaged, cut short'):
        read_checkpoint(path)


def test_a_classifier_does_not_become_a_detector(files):
    model = build('detection/retinanet_transxnet_t')
    with pytest.raises(ValueError, match=r'start from it by model\.backbone'):
        load_weights(model, files['bare'])


def test_a_detector_does_not_become_a_classifier(tmp_path):
    detector = build('detection/retinanet_transxnet_t')
    torch.save(detector.state_dict(), tmp_path / 'detector.pth')
    message = r'missing: .*head\.fc\.weight.*unexpected: neck'
    with pytest.raises(ValueError, match=message):
        load_weights(classifier(), str(tmp_path / 'detector.pth'))

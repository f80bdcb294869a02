"""tools/convert_checkpoint.py, as a user calls it."""

import hashlib
import runpy
import sys

import pytest
import torch
from safetensors import safe_open

from mmtransxnet import TransXNet
from mmtransxnet.weights import load_weights
from mmtransxnet.weights.reader import read_checkpoint
from tests.support.compare import assert_identical
from tests.support.models import MICRO
from tests.support.paths import ROOT
from tests.support.published_files import classification_state, other

TOOL = str(ROOT / 'tools/convert_checkpoint.py')
CONFIG = f"""
custom_imports = dict(imports=['mmtransxnet'])
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TransXNet', arch={MICRO}, image_size=64, out_indices=(3, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
"""


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool in this process; return status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['convert', *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(TOOL, run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, ''.join(capsys.readouterr())

    return run


def training_dict(arch, classes=10, **more):
    """A published classifier in its training checkpoint."""
    state = classification_state(arch, 64, classes)
    average = other(state)
    momenta = {i: torch.randn(1000) for i in range(1000)}
    return dict(
        state_dict=state,
        state_dict_ema=average,
        optimizer=dict(state=momenta, param_groups=[]),
        **more,
    )


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Size T in its file, and the weights."""
    path = tmp_path_factory.mktemp('source') / 'transx-t.pth.tar'
    content = training_dict('t')
    torch.save(content, path)
    return path, content


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_with_metadata(convert, source, tmp_path):
    path, content = source
    out = tmp_path / 'new' / 't.safetensors'
    status, log = convert(path, out)
    assert status == 0, log
    with safe_open(out, 'pt') as file:
        assert set(file.keys()) == set(content['state_dict'])
        assert file.metadata()['source'] == 'transx-t.pth.tar'
        assert file.metadata()['source_sha256'] == sha256(path)
        assert file.metadata()['image_size'] == '64'
    assert f'sha256 {sha256(path)}' in log
    assert f'sha256 {sha256(out)}' in log
    assert f'{out.stat().st_size / 2**20:.1f} MiB' in log
    # Neither the momenta nor the averages.
    assert out.stat().st_size < path.stat().st_size / 2
    load_weights(TransXNet('t', 64), str(out))


def test_ema_to_pth(convert, source, tmp_path):
    path, content = source
    status, log = convert(path, tmp_path / 't.pth', '--ema')
    assert status == 0, log
    # Nothing but tensors and strings.
    written = torch.load(tmp_path / 't.pth', weights_only=True)
    assert set(written) == {'state_dict', 'meta'}
    assert_identical(written['state_dict'], content['state_dict_ema'])


def test_to_the_names_of_a_config(convert, tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    content = training_dict(MICRO, meta=dict(CLASSES=('a', 'b')))
    torch.save(content, tmp_path / 'source.pth')
    out = tmp_path / 'out.safetensors'
    config = tmp_path / 'config.py'
    status, log = convert(tmp_path / 'source.pth', out, '--config', config)
    assert status == 0, log
    written = read_checkpoint(out)
    assert written['meta']['dataset_meta'] == {'classes': ['a', 'b']}
    head = written['state_dict']['head.fc.weight']
    state = content['state_dict']
    assert torch.equal(head, state['classifier.2.weight'].flatten(1))
    norm = written['state_dict']['backbone.norm6.weight']
    assert torch.equal(norm, state['classifier.0.weight'])


def test_unmapped_names_are_all_listed(convert, tmp_path):
    content = training_dict('t')
    odd = [f'odd.{number}' for number in range(5)]
    content['state_dict'].update(dict.fromkeys(odd, torch.zeros(1)))
    del content['state_dict']['network.0.0.norm1.bias']
    torch.save(content, tmp_path / 'source.pth')
    out = tmp_path / 'out.pth'
    status, log = convert(tmp_path / 'source.pth', out)
    assert status == 2
    for name in [*odd, 'network.0.0.norm1.bias', '5 unexpected', '1 missing']:
        assert name in log
    assert not out.exists()
    allow = ['--allow', 'odd.*', 'network.0.0.norm1.bias']
    status, log = convert(tmp_path / 'source.pth', out, *allow)
    assert status == 0, log
    assert not {*odd} & set(read_checkpoint(out)['state_dict'])


@pytest.mark.parametrize(
    ('content', 'flags', 'message'),
    [
        (dict(state_dict={}), [], 'give the --config'),
        (training_dict(MICRO), [], 'neither T, S nor B'),
        (dict(state_dict={}), ['--ema'], 'no state_dict_ema'),
    ],
    ids=['nothing', 'another size', 'no average'],
)
def test_what_cannot_be_converted(convert, tmp_path, content, flags, message):
    torch.save(content, tmp_path / 'source.pth')
    out = tmp_path / 'out.pth'
    status, log = convert(tmp_path / 'source.pth', out, *flags)
    assert status == 2, log
    assert message in log
    assert not out.exists()


def test_endings_are_checked_first(convert, tmp_path):
    status, log = convert('gone.pth', tmp_path / 'out.bin')
    assert status == 2
    assert 'must end in .pth or .safetensors' in log

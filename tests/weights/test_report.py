"""What was loaded, what was not, and why."""

import errno
import os

import pytest
import torch

from mmtransxnet import TransXNet
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights import load_weights, save_weights
from mmtransxnet.weights.matching import match_weights
from tests.support.compare import assert_identical
from tests.support.models import MICRO
from tests.support.published_files import SIZE, build


@pytest.fixture
def model():
    return TransXNet(MICRO, SIZE)


def test_reasons(state, model):
    outcome = match_weights(state, model.state_dict())
    assert set(outcome.left_out) == {
        f'classifier.{i}.{kind}' for i in (0, 2) for kind in ('weight', 'bias')
    }
    assert len(outcome.fresh) == 8  # a weight and a bias for each output
    assert outcome.problems == []
    loaded, left, fresh = outcome.report()
    assert loaded == f'{len(state) - 4} tensors loaded'
    assert left.startswith('4 of the file left out (as the published')
    assert 'classifier.2.bias' in left
    assert 'norm6.bias' in fresh


def test_the_log_tells(files, model, monkeypatch):
    told = []
    monkeypatch.setattr(
        'mmtransxnet.weights.loading.print_log',
        lambda line, *_: told.append(line),
    )
    load_weights(model, files['bare'])
    assert len(told) == 3
    assert all(line.startswith(files['bare']) for line in told)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('network.0.0.norm1.bias'), '1 missing: network.0.0'),
        (lambda s: s.update(more=torch.ones(1)), '1 unexpected: more'),
        (
            lambda s: s.update({'network.0.0.norm1.bias': torch.ones(3)}),
            r'1 of another shape: network.0.0.norm1.bias \(3,\) for \(16,\)',
        ),
    ],
)
def test_one_name_too_few_or_too_many(state, model, tmp_path, change, message):
    state = dict(state)
    change(state)
    torch.save(state, tmp_path / 'odd.pth')
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, str(tmp_path / 'odd.pth'))
    # All or nothing.
    assert_identical(model.state_dict(), before)
    patterns = ['more', 'network.0.0.norm1.*']
    outcome = load_weights(model, str(tmp_path / 'odd.pth'), allow=patterns)
    assert 'allowed by name' in {
        *outcome.left_out.values(),
        *outcome.fresh.values(),
    }


def test_a_prefix_that_is_not_there(files, model):
    with pytest.raises(ValueError, match='no names with the prefix backbone'):
        load_weights(model, files['bare'], prefix='backbone')


def test_files_without_counts_of_batches(state, model):
    """Written before batch norms counted; nothing computes with them."""
    old = {n: v for n, v in state.items() if 'num_batches' not in n}
    assert match_weights(old, model.state_dict()).problems == []


def test_init_cfg_with_other_initialisers(files):
    """As mmengine: the pretrained weights come last."""
    model = TransXNet(
        MICRO,
        SIZE,
        init_cfg=[
            dict(type='Pretrained', checkpoint=files['bare']),
            dict(type='Constant', layer='GroupNorm', val=3.0),
        ],
    )
    given = model.init_cfg
    model.init_weights()
    assert model.init_cfg is given
    assert (model.norm0.weight == 3).all()
    assert not (model.network[0][0].norm1.weight == 3).all()


def test_init_weights_again_changes_nothing(files):
    """mmengine warns of a second call and leaves the model alone."""
    init_cfg = dict(type='Pretrained', checkpoint=files['bare'])
    model = TransXNet(MICRO, SIZE, init_cfg=init_cfg)
    model.init_weights()
    with torch.no_grad():
        model.relative_pos_enc[0].fill_(7)
    model.init_weights()
    assert (model.relative_pos_enc[0] == 7).all()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_saved_weights_load(suffix, tmp_path):
    from mmtransxnet.weights.reader import read_checkpoint

    model = build('classification/transxnet_t')
    path = tmp_path / f'out{suffix}'
    meta = dict(dataset_meta={'classes': ['a', 'b']}, image_size='64')
    save_weights(path, model.state_dict(), meta)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    content = read_checkpoint(path)
    assert content['meta']['dataset_meta'] == meta['dataset_meta']
    again = build('classification/transxnet_t')
    load_weights(again, str(path))
    assert_identical(again.state_dict(), model.state_dict())


def test_an_unfinished_file_does_not_stay(tmp_path):
    with pytest.raises(ValueError, match='must end in'):
        save_weights(tmp_path / 'out.bin', {}, {})
    with pytest.raises(TypeError):
        save_weights(tmp_path / 'out.safetensors', {}, {'x': object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_full_disk_is_one_error(tmp_path, monkeypatch, suffix):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'No space left.*then start again$'):
        save_weights(tmp_path / f'a.{suffix}', {'a': torch.ones(2)}, {})
    assert not list(tmp_path.iterdir())

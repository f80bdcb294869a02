"""Data and checkpoints are checked before a run starts."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import (
    UserError,
    check_checkpoint,
    check_data,
)

pytestmark = pytest.mark.distribution


def data_config(root, **changes):
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='ann.json',
        data_prefix=dict(img='images/'),
        pipeline=[dict(type='LoadImageFromFile')],
    )
    dataset.update(changes)
    return Config(
        dict(
            default_scope='mmdet',
            data_remedy='run the builder',
            train_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dataset)
            ),
            train_evaluator=None,
            val_dataloader=None,
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
        )
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'images/a.png')
    image = dict(id=1, file_name='a.png', width=8, height=8)
    document = dict(images=[image], categories=[])
    (tmp_path / 'ann.json').write_text(json.dumps(document))
    (tmp_path / 'val.json').touch()
    return tmp_path


def test_complete_data_passes(root):
    check_data(data_config(root), ['train', 'val'])


def test_missing_root_is_named_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r'nowhere does not exist\. run the b'):
        check_data(data_config(tmp_path / 'nowhere'), ['train'])


@pytest.mark.parametrize(
    ('missing', 'split'),
    [('ann.json', 'train'), ('images', 'train'), ('val.json', 'val')],
)
def test_missing_parts_are_named(root, missing, split):
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=f'{missing}'):
        check_data(data_config(root), [split])
    other = {'train': 'val', 'val': 'train'}[split]
    check_data(data_config(root), [other])


def test_data_prefix_may_be_a_string(root):
    (root / 'images/a').mkdir()
    (root / 'images/a.png').rename(root / 'images/a/1.png')
    config = data_config(root, type='CustomDataset', ann_file='')
    config.default_scope = 'mmpretrain'
    config.train_dataloader.dataset.dataset.data_prefix = 'images'
    check_data(config, ['train'])
    config.train_dataloader.dataset.dataset.data_prefix = 'pictures'
    with pytest.raises(UserError, match='pictures'):
        check_data(config, ['train'])


def test_the_check_can_be_left_out(tmp_path):
    config = data_config(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='--no-check'):
        check_data(config, ['train'])
    config.check_data = False
    check_data(config, ['train'])


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize('wrap', [dict, lambda s: dict(state_dict=s, meta={})])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_fitting_checkpoint_passes(tmp_path, model, wrap, prefix):
    state = {prefix + k: v for k, v in model.state_dict().items()}
    torch.save(wrap(state), tmp_path / 'fit.pth')
    check_checkpoint(str(tmp_path / 'fit.pth'), model, 'config.py')


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda s: s.pop('0.bias'), '1 missing: 0.bias'),
        (lambda s: s.update(x=torch.zeros(1)), '1 unexpected: x'),
        (lambda s: s.update({'0.bias': torch.zeros(9)}), r'0.bias \(9,\)'),
    ],
)
def test_misfit_is_named(tmp_path, model, change, named):
    state = model.state_dict()
    change(state)
    torch.save(dict(state_dict=state), tmp_path / 'misfit.pth')
    with pytest.raises(UserError, match=named):
        check_checkpoint(str(tmp_path / 'misfit.pth'), model, 'config.py')


@pytest.mark.parametrize(
    'content', [b'', b'<html>404</html>', b'PK\x03\x04 cut short']
)
def test_no_checkpoint_at_all(tmp_path, model, content):
    path = tmp_path / 'broken.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match='cannot be read'):
        check_checkpoint(str(path), model, 'config.py')


def test_missing_checkpoint(tmp_path, model):
    with pytest.raises(UserError, match=r'gone.pth is not a file'):
        check_checkpoint(str(tmp_path / 'gone.pth'), model, 'config.py')


class Intruder:
    """Pickles to a call, as a malicious file would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_nothing_in_a_checkpoint_runs(tmp_path, model):
    trace = tmp_path / 'trace'
    torch.save(dict(state_dict=Intruder(str(trace))), tmp_path / 'bad.pth')
    with pytest.raises(UserError, match='cannot be read'):
        check_checkpoint(str(tmp_path / 'bad.pth'), model, 'config.py')
    assert not trace.exists()

"""Configs are found by name, from any folder, each with its own data."""

import os
from pathlib import Path

import pytest

from mmtransxnet.engine.config.loading import config_path, load_config
from mmtransxnet.utils.errors import UserError
from tests.support.paths import ROOT

CONFIG = ROOT / 'configs/detection/maskrcnn_transxnet_s.py'


def test_names_and_paths_of_the_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path('maskrcnn_transxnet_s') == str(CONFIG)
    path = 'configs/detection/maskrcnn_transxnet_s.py'
    assert config_path(path) == str(CONFIG)


def test_files_of_the_user_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('maskrcnn_transxnet_s').write_text('model = 1')
    assert config_path('maskrcnn_transxnet_s') == 'maskrcnn_transxnet_s'


@pytest.mark.parametrize(
    'name',
    [
        'maskrcnn_transxnet_s.py',  # a file that is not there
        'elsewhere/maskrcnn_transxnet_s.py',
        'configs/segmentation/maskrcnn_transxnet_s.py',
        'maskrcnn_transxnet_x',
    ],
)
def test_other_names_are_errors_with_suggestions(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='did you mean maskrcnn_transxnet_'):
        config_path(name)


def test_every_config_has_a_name_of_its_own():
    names = [p.stem for p in ROOT.glob('configs/[!_]*/*.py')]
    assert len(names) == len(set(names)) >= 22


def test_the_root_of_the_data_is_of_one_config(monkeypatch):
    monkeypatch.setenv('COCO_ROOT', 'data of the user')
    monkeypatch.delenv('DIGITS_ROOT', raising=False)
    before = dict(os.environ)
    name = 'retinanet_transxnet_t'
    assert load_config(name, data_root='elsewhere').data_root == 'elsewhere'
    assert dict(os.environ) == before
    assert load_config(name).data_root == 'data of the user'
    with pytest.raises(UserError):
        load_config(name, {'nothing': 1}, data_root='elsewhere')
    assert dict(os.environ) == before

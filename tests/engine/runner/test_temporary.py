"""A run of which nothing is kept leaves no log open."""

import logging.config
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.model import BaseModule

from mmtransxnet.engine import temporary_work_dir


def _files() -> list[str]:
    return [
        handler.baseFilename
        for logger in MMLogger._instance_dict.values()
        for handler in logger.handlers
        if isinstance(handler, logging.FileHandler)
    ]


@pytest.fixture
def other(tmp_path):
    """The log of another run, which stays."""
    logger = MMLogger.get_instance('other', log_file=str(tmp_path / 'log'))
    yield tmp_path / 'log'
    for handler in logger.handlers:
        handler.close()
    MMLogger._instance_dict.pop('other')


def test_a_model_is_made_after_the_folder_is_gone(other):
    before = set(_files())
    with temporary_work_dir() as folder:
        name = Path(folder).name
        MMLogger.get_instance(name, log_file=f'{folder}/run.log')
        assert set(_files()) == before | {f'{folder}/run.log'}
    assert not Path(folder).exists()
    assert set(_files()) == before
    assert str(other) in before
    # As servers do: it closes all handlers of the process.
    logging.config.dictConfig(dict(version=1))
    MMLogger._instance_dict.move_to_end(name)
    BaseModule().init_weights()
    MMLogger._instance_dict.pop(name)


def _fails():
    with temporary_work_dir() as folder:
        MMLogger.get_instance('broken', log_file=f'{folder}/run.log')
        raise ValueError('why')


def test_closed_after_an_error():
    before = _files()
    with pytest.raises(ValueError, match='why'):
        _fails()
    MMLogger._instance_dict.pop('broken')
    assert _files() == before

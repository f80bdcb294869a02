"""Runs on bad data: they end with a line, or go on without it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support import corrupt_files
from tests.support.processes import free_port

SCRATCH = 'model.backbone.init_cfg=None'
WORKERS = ('train_dataloader.num_workers=2',)


@pytest.fixture
def root(digits, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(digits, tmp_path / 'digits')


def spoil_labels(root, *names):
    """Write labels that there are not; a look at the files finds none."""
    paths = [root / f'ade/annotations/training/{name}.png' for name in names]
    for path in paths:
        Image.fromarray(np.full((96, 96), 99, 'uint8')).save(path)
    return paths


def errors(log):
    return [line for line in log.splitlines() if line.startswith('error:')]


def test_error_out_of_a_worker(tool, configs, root, tmp_path):
    (bad,) = spoil_labels(root, '000002')
    status, log = tool(
        'train.py', configs['segmentor'], '--work-dir', tmp_path / 'work',
        '--cfg-options', SCRATCH, *WORKERS, root=root,
    )  # fmt: skip
    assert status == 2, log
    (line,) = errors(log)
    assert line.startswith(f'error: bad data: {bad} has unknown labels: 99')
    assert 'Traceback' not in log


def test_two_processes_go_on_without_it(tool, configs, root, tmp_path):
    (bad,) = spoil_labels(root, '000002')
    picture = root / 'ade/images/training/000003.jpg'
    picture.unlink()
    picture.write_bytes(corrupt_files.bomb())
    # What an earlier run has found does not count.
    (tmp_path / 'bad_data').mkdir()
    (tmp_path / 'bad_data/x.jsonl').write_text('"earlier"\n')
    status, log = tool(
        'dist_train.sh', configs['segmentor'], 2, '--work-dir', tmp_path,
        '--cfg-options', SCRATCH, *WORKERS, 'bad_data.policy=skip',
        'bad_data.limit=2', root=root, PORT=free_port(),
    )  # fmt: skip
    assert status == 0, log
    assert 'mIoU' in log
    assert log.count(f'bad data, replaced: {bad} has unknown labels') == 1
    assert log.count(f'bad data, replaced: {picture} is too large') == 1
    assert 'bad data: 2 samples replaced, at most 2 are accepted' in log
    # What the libraries read from a stored config is theirs.
    assert 'guarded_dataset' not in (tmp_path / 'segmentor.py').read_text()


def test_two_processes_count_together(tool, configs, root, tmp_path):
    """Each has two of the four pictures; all of them is more than three."""
    bad = spoil_labels(root, '000001', '000002', '000003', '000004')
    status, log = tool(
        'dist_train.sh', configs['segmentor'], 2, '--work-dir', tmp_path,
        '--cfg-options', SCRATCH, *WORKERS, 'bad_data.policy=skip',
        'bad_data.limit=3', root=root, PORT=free_port(),
    )  # fmt: skip
    assert status != 0, log
    assert 'more than bad_data.limit=3' in errors(log)[0]
    assert str(bad[0]) in errors(log)[0]


def test_error_while_annotations_are_loaded(tool, configs, root, tmp_path):
    path = root / 'coco/annotations/instances_train.json'
    path.write_text(path.read_text().replace('"area":', '"area":-', 1))
    status, log = tool(
        'train.py', configs['detector'], '--work-dir', tmp_path / 'work',
        '--cfg-options', SCRATCH, 'bad_data.policy=error', root=root,
    )  # fmt: skip
    assert status == 2, log
    (line,) = errors(log)
    assert f'{path}: annotation 1 of 000001.jpg: no area' in line
    assert 'Traceback' not in log


@pytest.mark.parametrize('policy', ['ignore', 'error'])
def test_before_a_run(tool, configs, root, tmp_path, policy):
    bad = root / 'ade/images/validation/000005.jpg'
    bad.write_bytes(b'')
    status, log = tool(
        'train.py', configs['segmentor'], '--work-dir', tmp_path / 'work',
        '--cfg-options', SCRATCH, f'bad_data.policy={policy}', root=root,
    )  # fmt: skip
    assert status == 2, log
    (line,) = errors(log)
    told = (
        "'ignore' is not one of" if policy == 'ignore' else f'{bad} is empty'
    )
    assert told in line

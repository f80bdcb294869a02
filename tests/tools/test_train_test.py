"""Train, resume, evaluate and draw with the tools a user calls."""

import json
import pickle

import pytest
import torch
from tiny import write_configs

from mmtransxnet.checkpoint import read_checkpoint

pytestmark = pytest.mark.distribution

SCRATCH = 'model.backbone.init_cfg=None'


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    return tmp_path_factory.mktemp('work')


@pytest.fixture(scope='module')
def configs(work):
    return write_configs(work)


def train(tool, config, work_dir, *options, flags=()):
    """Run tools/train.py with some --cfg-options."""
    arguments = [config, '--work-dir', work_dir, *flags]
    if options:
        arguments += ['--cfg-options', *options]
    return tool('train.py', *arguments)


def test_classifier_pretrains_a_detector_that_is_evaluated(
    tool, work, configs
):
    classifier, detector = configs
    status, log = train(tool, classifier, work / 'classifier')
    assert status == 0, log
    assert 'accuracy/top1' in log
    pretrained = (work / 'classifier/last_checkpoint').read_text()

    status, log = train(
        tool,
        detector,
        work / 'detector',
        f'model.backbone.init_cfg.checkpoint={pretrained}',
    )
    assert status == 0, log
    assert 'coco/segm_mAP_50' in log
    assert log.count('Operators of mmcv.ops') == 1

    status, log = tool(
        'test.py',
        detector,
        work / 'detector/epoch_2.pth',
        '--work-dir',
        work / 'test',
        '--out',
        work / 'test/predictions.pkl',
        '--show-dir',
        work / 'test/drawn',
    )
    assert status == 0, log
    (metrics,) = (work / 'test').glob('*/*.json')
    assert 'coco/bbox_mAP_50' in json.loads(metrics.read_text())
    predictions = pickle.loads((work / 'test/predictions.pkl').read_bytes())
    assert len(predictions) == 4
    assert len(list((work / 'test/drawn').rglob('*.jpg'))) == 4

    status, log = tool(
        'test.py',
        detector,
        work / 'detector/epoch_2.pth',
        '--work-dir',
        work / 'folded',
        '--fold',
    )
    assert status == 0, log
    (folded,) = (work / 'folded').glob('*/*.json')
    for name, value in json.loads(metrics.read_text()).items():
        if name.startswith('coco/'):
            found = json.loads(folded.read_text())[name]
            assert found == pytest.approx(value, abs=2e-3), name


def test_resume_goes_on(tool, work, configs):
    status, log = train(tool, configs[1], work / 'resumed', SCRATCH)
    assert status == 0, log
    status, log = train(
        tool,
        configs[1],
        work / 'resumed',
        'train_cfg.max_epochs=3',
        flags=['--resume'],
    )
    assert status == 0, log
    assert 'resumed epoch: 2' in log
    checkpoint = read_checkpoint(str(work / 'resumed/epoch_3.pth'))
    assert checkpoint['meta']['epoch'] == 3


def one_error(status, log):
    """The only complaint, in one line and without a traceback."""
    assert status == 2, log
    assert 'Traceback' not in log
    (line,) = [text for text in log.splitlines() if text.startswith('error:')]
    return line


def test_missing_data(tool, tmp_path, configs):
    outcome = tool(
        'train.py', configs[1], '--work-dir', tmp_path, root=tmp_path / 'none'
    )
    line = one_error(*outcome)
    assert str(tmp_path / 'none') in line
    assert 'build_digits.py' in line


def test_unknown_option(tool, tmp_path, configs):
    outcome = train(tool, configs[1], tmp_path, 'model.backbone.with_cpp=True')
    assert "did you mean 'with_cp'" in one_error(*outcome)


def test_missing_pretrained_weights(tool, tmp_path, configs):
    gone = 'model.backbone.init_cfg.checkpoint=gone.pth'
    outcome = train(tool, configs[1], tmp_path, gone)
    line = one_error(*outcome)
    assert 'gone.pth is not a file' in line
    assert SCRATCH in line


def test_resume_from_nothing(tool, tmp_path, configs):
    outcome = train(tool, configs[1], tmp_path, flags=['--resume'])
    assert 'no checkpoint' in one_error(*outcome)


def test_checkpoint_of_another_model(tool, tmp_path, configs):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'weight': torch.zeros(3)}}, path)
    outcome = tool('test.py', configs[1], path, '--work-dir', tmp_path)
    line = one_error(*outcome)
    assert 'does not fit' in line
    assert 'weight' in line

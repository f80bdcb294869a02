"""Train, resume, evaluate and draw with the tools a user calls."""

import json
import pickle
from functools import partial

import pytest
import torch

from mmtransxnet.weights.reader import read_checkpoint

SCRATCH = 'model.backbone.init_cfg=None'


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    return tmp_path_factory.mktemp('work')


def train(tool, config, work_dir, *options, flags=()):
    """Run tools/train.py with some --cfg-options."""
    arguments = [config, '--work-dir', work_dir, *flags]
    if options:
        arguments += ['--cfg-options', *options]
    return tool('train.py', *arguments)


@pytest.mark.distribution
def test_classifier_pretrains_a_detector_that_is_evaluated(
    tool, work, configs
):
    classifier, detector = configs['classifier'], configs['detector']
    status, log = train(tool, classifier, work / 'classifier')
    assert status == 0, log
    assert 'accuracy/top1' in log
    pretrained = (work / 'classifier/last_checkpoint').read_text()

    # In a new Python: one that has loaded the package does not announce the
    # operators again.
    status, log = train(
        partial(tool, PYTHONHASHSEED='0'),
        detector,
        work / 'detector',
        f'model.backbone.init_cfg.checkpoint={pretrained}',
    )
    assert status == 0, log
    assert 'coco/segm_mAP_50' in log
    assert log.count('Operators of mmcv.ops') == 1
    # A summary on the terminal; the dumps are in the file.
    assert 'This run:' in log
    assert 'MaskRCNN, ' in log
    assert '10 classes, batches of' in log
    assert 'default_hooks = dict(' not in log
    assert 'System environment' not in log
    (file,) = (work / 'detector').glob('*/*.log')
    for dump in ('This run:', 'default_hooks = dict(', 'System environment'):
        assert dump in file.read_text()

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
    assert len(predictions) == 5
    assert len(list((work / 'test/drawn').rglob('*.jpg'))) == 5

    status, log = tool(
        'test.py',
        configs['detector'],
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


def test_segmentor_in_mixed_precision(tool, work, configs):
    """Trained by --amp, tested by --tta, every picture drawn."""
    folder = work / 'segmentor'
    config = configs['segmentor']
    status, log = train(tool, config, folder, SCRATCH, flags=['--amp'])
    assert status == 0, log
    assert 'mIoU' in log
    weights = read_checkpoint(str(folder / 'iter_4.pth'))['state_dict']
    assert {w.dtype for w in weights.values()} == {torch.float32, torch.int64}

    status, log = tool(
        'test.py', config, folder / 'iter_4.pth', '--work-dir', folder,
        '--tta', '--show-dir', work / 'maps',
    )  # fmt: skip
    assert status == 0, log
    assert 'mIoU' in log
    assert len(list((work / 'maps').rglob('*.png'))) == 5


def test_no_augmented_testing_where_the_config_has_none(
    tool, tmp_path, configs
):
    outcome = tool('test.py', configs['detector'], 'x.pth', '--tta')
    assert 'has no tta_model and no tta_pipeline' in one_error(*outcome)


def test_no_sharding_without_gpus(tool, tmp_path, configs):
    outcome = train(tool, configs['detector'], tmp_path, flags=['--fsdp'])
    assert '--fsdp needs GPUs' in one_error(*outcome)


@pytest.mark.distribution
def test_resume_goes_on(tool, work, configs):
    """The same command begins, and goes on."""
    status, log = train(
        tool,
        configs['detector'],
        work / 'resumed',
        SCRATCH,
        flags=['--resume'],
    )
    assert status == 0, log
    assert 'no checkpoint in' in log
    status, log = train(
        tool,
        configs['detector'],
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
        'train.py',
        configs['detector'],
        '--work-dir',
        tmp_path,
        root=tmp_path / 'none',
    )
    line = one_error(*outcome)
    assert str(tmp_path / 'none') in line
    assert 'build_digits.py' in line


def test_unknown_option(tool, tmp_path, configs):
    outcome = train(
        tool, configs['detector'], tmp_path, 'model.backbone.with_cpp=True'
    )
    assert "did you mean 'with_cp'" in one_error(*outcome)


def test_missing_pretrained_weights(tool, tmp_path, configs):
    gone = 'model.backbone.init_cfg.checkpoint=gone.pth'
    outcome = train(tool, configs['detector'], tmp_path, gone)
    line = one_error(*outcome)
    assert 'gone.pth is not a file' in line
    assert SCRATCH in line


def test_checkpoint_of_another_model(tool, tmp_path, configs):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'weight': torch.zeros(3)}}, path)
    outcome = tool(
        'test.py', configs['detector'], path, '--work-dir', tmp_path
    )
    line = one_error(*outcome)
    assert 'does not fit' in line
    assert 'weight' in line

"""tools/test.py with exported folders, whose predictions are known."""

import argparse
import json
import pickle
import runpy

import numpy as np
import pytest

from mmtransxnet.utils.errors import UserError
from tests.support.exported import write_exported
from tests.support.paths import ROOT

DIGITS = [str(digit) for digit in range(10)]
CLASSES = {
    'classifier': DIGITS,
    'detector': DIGITS,
    'segmentor': ['background', *DIGITS],
}
TASKS = {
    'classifier': 'classification',
    'detector': 'detection',
    'segmentor': 'segmentation',
}


def export(folder, name, **changes):
    changes.setdefault('classes', CLASSES[name])
    return write_exported(folder, TASKS[name], **changes)


@pytest.mark.parametrize('name', TASKS)
def test_metrics_predictions_and_drawings(tool, configs, tmp_path, name):
    folder = export(tmp_path / 'exported', name, formats=('onnx', 'openvino'))
    work = tmp_path / 'work'
    status, log = tool(
        'test.py',
        configs[name],
        folder,
        '--engine',
        'onnxruntime',
        '--work-dir',
        work,
        '--out',
        tmp_path / 'out.pkl',
        '--show-dir',
        tmp_path / 'drawn',
    )
    assert status == 0, log
    (metrics,) = work.glob('*/*.json')
    keys = {
        'classifier': 'accuracy/top1',
        'detector': 'coco/segm_mAP',
        'segmentor': 'mIoU',
    }
    assert keys[name] in json.loads(metrics.read_text())
    assert list((tmp_path / 'drawn').rglob('*.[pj][np]g'))
    predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    check = {
        'classifier': check_scores,
        'detector': check_boxes,
        'segmentor': check_labels,
    }
    for prediction in predictions:
        check[name](prediction)


def check_scores(prediction):
    scores = prediction['pred_score'].numpy()
    assert scores.shape == (3,)
    assert prediction['pred_label'].numpy() == [scores.argmax()]


def check_boxes(prediction):
    height, width = prediction['ori_shape']
    boxes = prediction['pred_instances']['bboxes'].numpy()
    shares = boxes / [width, height, width, height]
    expected = [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1]]
    assert np.allclose(shares, expected, atol=1e-5)
    masks = prediction['pred_instances']['masks']
    assert [mask['size'] for mask in masks] == [[height, width]] * 2


def check_labels(prediction):
    labels = prediction['pred_sem_seg']['data'].numpy()
    assert labels.dtype == np.int64
    assert labels.shape == (1, *prediction['ori_shape'])
    assert set(np.unique(labels)) <= {0, 1}


def test_other_classes_are_one_line(tool, configs, tmp_path):
    folder = export(tmp_path / 'other', 'detector', classes=['cat', 'dog'])
    work = ('--work-dir', tmp_path / 'work')
    status, log = tool('test.py', configs['detector'], folder, *work)
    assert status == 2, log
    (line,) = [x for x in log.splitlines() if x.startswith('error: ')]
    assert 'classes of the test data (10)' in line


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(fold=True), '--fold: .* is an exported model'),
        (dict(tta=True), '--tta: '),
        (dict(launcher='pytorch'), '--launcher: '),
        (dict(checkpoint='a.pth', engine='openvino'), '--engine: a.pth is'),
        (dict(checkpoint='a.pth', bf16=True), '--bf16: a.pth is not'),
    ],
)
def test_flags_that_do_not_belong(tmp_path, changes, message):
    program = runpy.run_path(str(ROOT / 'tools/test.py'))
    flags = dict(fold=False, tta=False, launcher='none', bf16=False)
    args = dict(checkpoint=str(tmp_path), engine=None, **flags) | changes
    with pytest.raises(UserError, match=message):
        program['check_flags'](argparse.Namespace(**args))

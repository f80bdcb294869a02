"""tools/test.py with exported folders, whose predictions are known."""

import json
import pickle

import numpy as np
import pytest

from tests.support.exported import write_exported

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


def test_refusals_are_one_line(tool, configs, tmp_path):
    folder = export(tmp_path / 'exported', 'detector')
    work = ('--work-dir', tmp_path / 'work')
    config = configs['detector']
    cases = [
        (config, [folder, '--fold'], '--fold: '),
        (config, [folder, '--tta'], '--tta: '),
        (config, [tmp_path], 'is not an exported model'),
        (configs['classifier'], [folder], 'is exported for detection'),
        (config, [folder, '--engine', 'openvino'], 'no file for openvino'),
        (config, ['a.pth', '--engine', 'openvino'], '--engine: a.pth is not'),
    ]
    export(tmp_path / 'other', 'detector', classes=['cat', 'dog'])
    cases.append((config, [tmp_path / 'other'], 'classes of the test data'))
    for file, arguments, message in cases:
        status, log = tool('test.py', file, *arguments, *work)
        assert status == 2, log
        (line,) = [x for x in log.splitlines() if x.startswith('error: ')]
        assert message in line

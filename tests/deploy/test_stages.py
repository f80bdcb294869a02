"""What is checked around the conversion; no model is converted."""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmtransxnet.deploy import formats
from mmtransxnet.deploy.export import Request, check_request, export
from mmtransxnet.deploy.folder import UNFINISHED, unfinished
from mmtransxnet.deploy.formats import check_formats
from mmtransxnet.deploy.graphs import deploy_form
from mmtransxnet.deploy.metadata import describe, picture_steps
from mmtransxnet.deploy.parity import (
    LIMITS,
    Parity,
    compare_detections,
    compare_maps,
)
from mmtransxnet.deploy.quantisation import check_loss
from mmtransxnet.utils.atomic_write import remove_unfinished
from mmtransxnet.utils.errors import UserError
from tests.support.deploy import short_config, short_model
from tests.support.suite_configs import CONFIGS, load


# --------------------------------------------------------------- requests
@pytest.mark.parametrize(
    ('names', 'precision', 'message'),
    [
        (['tflite'], 'fp32', '--format tflite: expected some of onnx'),
        (['onnx'], 'fp8', '--precision fp8: expected one of fp32'),
        (['onnx'], 'int8', 'not available in onnx: add --format openvino'),
    ],
)
def test_unknown_requests(names, precision, message):
    with pytest.raises(UserError, match=message):
        check_formats(names, precision)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(
        formats, 'find_spec', lambda name: None if name == 'nncf' else name
    )
    check_formats(['openvino'], 'fp16')
    with pytest.raises(UserError, match=r'nncf is not .*mmtransxnet\[export'):
        check_formats(['openvino'], 'int8')


def _request_only(name, out, reports, **changes):
    """Ask for an export."""
    config = short_config(name)
    export(
        short_model(name),
        config,
        Request(out, formats=('onnx',), **changes),
        checkpoint=Path(__file__),
        dataset_meta={'classes': ['one']},
        report=reports.append,
    )


def _stop(*_):
    raise ZeroDivisionError


def test_raw_masks_need_masks(tmp_path):
    name = 'classification/transxnet_t_digits'
    with pytest.raises(UserError, match='gives no masks of objects'):
        _request_only(name, tmp_path / 'exported', [], raw_masks=True)
    assert list(tmp_path.iterdir()) == []


def test_what_a_stopped_export_left_is_named(tmp_path, monkeypatch):
    left = tmp_path / 'exported-abc.exporting'
    left.mkdir()
    (tmp_path / 'other-abc.exporting').mkdir()
    monkeypatch.setattr('mmtransxnet.deploy.export._convert', _stop)
    reports = []
    with pytest.raises(ZeroDivisionError):
        _request_only(
            'classification/transxnet_t_digits', tmp_path / 'exported', reports
        )
    (note,) = reports
    assert note.startswith(f'note: {left.resolve()} ')


# ----------------------------------------------------------------- folder
def test_a_foreign_folder_is_not_replaced(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years')
    with pytest.raises(UserError, match='not an exported model'):
        check_request(Request(tmp_path))


def _fail(out):
    with unfinished(out) as folder:
        (folder / 'new').touch()
        1 / 0  # noqa: B018


def _export(out, *names):
    with unfinished(out) as folder:
        (folder / 'model.json').write_text('{"format_version": 1, "files": 1}')
        for name in names:
            (folder / name).touch()


def test_an_earlier_export_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / 'exported'
    _export(out, 'model.xml', 'model.bin')
    _export(out, 'model.onnx')
    assert {p.name for p in out.iterdir()} == {'model.json', 'model.onnx'}
    with pytest.raises(ZeroDivisionError):
        _fail(out)
    assert {p.name for p in out.iterdir()} == {'model.json', 'model.onnx'}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('photo.jpg', 'x', r'other things than an export: photo\.jpg'),
        ('model.json', '{"keras": 1}', 'not an exported model'),
        ('model.json', '[', 'not an exported model'),
    ],
)
def test_what_is_not_of_an_export_is_kept(tmp_path, name, content, message):
    out = tmp_path / 'exported'
    _export(out, 'model.onnx')
    (out / name).write_text(content)
    with pytest.raises(UserError, match=message):
        _export(out)
    assert (out / name).read_text() == content


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='the current folder'):
        check_request(Request(Path()))


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    _export(tmp_path / 'link', 'model.onnx')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'real' / 'model.onnx').is_file()


def test_the_earlier_export_is_put_back(tmp_path, monkeypatch):
    out = tmp_path / 'exported'
    _export(out, 'model.onnx')
    replace = os.replace

    def failing(source, target):
        if str(source).endswith(UNFINISHED):
            raise OSError(28, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', failing)
    with pytest.raises(UserError, match='No space left'):
        _export(out, 'model.xml')
    assert (out / 'model.onnx').is_file()
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_export_does_not_stop_a_training_run(tmp_path):
    with unfinished(tmp_path / 'exported'):
        assert remove_unfinished(tmp_path) == []


# --------------------------------------------------------------- pictures
@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_every_config_has_known_steps(path):
    steps = picture_steps(load(path))
    assert all(step['step'] for step in steps)


def test_steps():
    steps = picture_steps(load('configs/segmentation/sfpn_transxnet_t.py'))
    assert steps == [
        {
            'step': 'resize',
            'scale': [2048, 512],
            'keep_ratio': True,
            'backend': 'cv2',
            'interpolation': 'bilinear',
        },
        {'step': 'resize_to_multiple', 'divisor': 32},
    ]


def test_an_unknown_step_is_named():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Sharpen')]
    dataset = dict(dataset=dict(pipeline=pipeline))
    config = Config(dict(test_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError, match='Sharpen of the test pipeline'):
        picture_steps(config)


# --------------------------------------------------------------- metadata
@pytest.mark.parametrize('raw_masks', [True, False])
def test_raw_masks_are_left_to_the_caller(tmp_path, raw_masks):
    name = 'detection/maskrcnn_transxnet_t_digits'
    checkpoint = tmp_path / 'checkpoint.pth'
    checkpoint.touch()
    model = short_model(name)
    content = describe(
        model,
        deploy_form(model),
        short_config(name),
        dataset_meta={'classes': ['0']},
        checkpoint=checkpoint,
        raw_masks=raw_masks,
    )
    assert content['masks'] == {
        'size': 28,
        'threshold': 0.5,
        'paste': not raw_masks,
    }


# ------------------------------------------------------------- comparison
def _detections(*rows):
    """One image with rows of a label, a score and a left edge."""
    count = len(rows)
    boxes = [[x, 0, x + 10, 10] for *_, x in rows] + [[0] * 4] * (4 - count)
    labels = [label for label, *_ in rows] + [0] * (4 - count)
    scores = [score for _, score, _ in rows] + [0] * (4 - count)
    return {
        'count': np.array([count]),
        'boxes': np.array([boxes], 'float32'),
        'scores': np.array([scores], 'float32'),
        'labels': np.array([labels]),
    }


def _problems(expected, got, compare=compare_detections):
    inputs = {'images': np.zeros((1, 100, 100, 3), 'uint8')}
    return list(compare(expected, got, inputs, LIMITS['fp32'], Parity()))


FIRST, SECOND = (1, 0.9, 20), (2, 0.9, 50)


@pytest.mark.parametrize(
    ('got', 'message'),
    [
        ([FIRST], '1 detections instead of 2'),
        ([FIRST, (3, 0.9, 50)], 'no match of the same label'),
        ([FIRST, (2, 0.9, 51)], 'output boxes differs'),
        ([FIRST, (2, 0.8, 50)], 'output scores differs'),
    ],
)
def test_detections_that_differ(got, message):
    (problem,) = _problems(_detections(FIRST, SECOND), _detections(*got))
    assert message in problem


def test_equal_scores_in_another_order_are_equal():
    expected, got = _detections(FIRST, SECOND), _detections(SECOND, FIRST)
    assert _problems(expected, got) == []
    assert _problems(_detections(), _detections()) == []


def test_label_maps():
    labels = np.zeros((1, 100, 100), 'uint8')
    other = labels.copy()
    other[0, 0, 0] = 1
    maps = {'labels': labels}
    assert _problems(maps, {'labels': other}, compare_maps) == []
    other[0, 0, 1] = 1
    (problem,) = _problems(maps, {'labels': other}, compare_maps)
    assert 'equal in 99.980% of the pixels' in problem


def test_numbers_that_are_not_finite_differ():
    scores = {'scores': np.array([[0.5]], 'float32')}
    wrong = {'scores': np.array([[np.nan]], 'float32')}
    assert len(_problems(scores, wrong, compare_maps)) == 1
    shape = {'scores': np.array([0.5], 'float32')}
    assert 'shape' in _problems(scores, shape, compare_maps)[0]


# ------------------------------------------------------------------- int8
def test_losses_are_in_points():
    lines = check_loss({'coco/bbox_mAP': 0.5}, {'coco/bbox_mAP': 0.495}, 1.0)
    assert lines == ['int8 loses 0.50 points of coco/bbox_mAP']
    with pytest.raises(UserError, match=r'loses 2\.00 points of mIoU'):
        check_loss({'mIoU': 80.0}, {'mIoU': 78.0}, 1.0)
    assert check_loss({'mIoU': 80.0}, {'mIoU': 78.0}, None)
    with pytest.raises(UserError, match='nan points'):
        check_loss({'mIoU': 80.0}, {'mIoU': float('nan')}, 1.0)
    with pytest.raises(UserError, match='cannot be judged'):
        check_loss({'loss': 1.0}, {'loss': 1.0}, 1.0)

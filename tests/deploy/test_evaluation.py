"""Exported models in place of the models they were exported from."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from pycocotools import mask

from mmtransxnet.deploy import export as stages
from mmtransxnet.deploy.evaluation import ExportedModel, exported_config
from mmtransxnet.engine.runner.build import build_runner
from mmtransxnet.utils.errors import UserError
from tests.support.deploy import short_config
from tests.support.detectors import deploy, detector
from tests.support.exported import write_exported
from tests.support.models import fill_by_name
from tests.support.suite_configs import build

# And the main metric.
CASES = {
    'classification/transxnet_t_digits': 'accuracy/top1',
    'detection/maskrcnn_transxnet_t_digits': 'coco/segm_mAP',
    'detection/retinanet_transxnet_t_digits': 'coco/bbox_mAP',
    'segmentation/sfpn_transxnet_t_digits': 'mIoU',
}


def run_config(name, tmp_path, digits):
    config = short_config(name)
    config.work_dir = str(tmp_path / 'work')
    config.model.backbone.init_cfg = None
    root = config.test_dataloader.dataset.data_root
    config.merge_from_dict(
        {
            'test_dataloader.num_workers': 0,
            'test_dataloader.persistent_workers': False,
            'test_dataloader.batch_size': 2,
            'test_dataloader.dataset.data_root': str(digits),
        }
    )
    for key in ('test_evaluator', 'val_evaluator'):
        file = config[key].get('ann_file')
        if file:
            config[key].ann_file = file.replace(root, str(digits))
    return config


def random_model(config):
    """A model with random weights that predicts more than one class."""
    if config.default_scope == 'mmdet':
        return detector(config)
    return fill_by_name(build(config)).eval()


@pytest.mark.parametrize('name', CASES)
def test_metrics_equal_those_of_pytorch(name, tmp_path, digits, monkeypatch):
    config = run_config(name, tmp_path, digits)
    detects = config.default_scope == 'mmdet'
    if detects:
        config.test_evaluator.outfile_prefix = str(tmp_path / 'expected')
        monkeypatch.setattr(stages, 'deploy_form', deploy)
    init_default_scope(config.default_scope)
    model = random_model(config)
    runner = build_runner(copy.deepcopy(config), ['test'])
    dataset = runner.test_dataloader.dataset
    height, width = dataset[0]['inputs'].shape[1:]
    runner.model = model
    expected = runner.test()
    assert CASES[name] in expected
    checkpoint = tmp_path / 'weights.pth'
    checkpoint.write_bytes(b'its checksum is stored')
    folder = tmp_path / 'exported'
    stages.export(
        model,
        config,
        # Constant sizes convert sooner; the last batch is not full.
        stages.Request(folder, ('onnx',), batch=2, size=(height, width)),
        checkpoint=checkpoint,
        dataset_meta=dataset.metainfo,
        report=lambda line: None,
    )
    check_constant_sizes(folder, 2, height, width)
    config = exported_config(config, folder)
    if detects:
        config.test_evaluator.outfile_prefix = str(tmp_path / 'got')
    metrics = build_runner(config, ['test']).test()
    for key, value in expected.items():
        if 'time' not in key:
            tolerance = 1e-3 if detects else 0.1
            assert metrics[key] == pytest.approx(
                value, abs=tolerance, nan_ok=True
            )
    if detects:
        # Random boxes hit next to nothing, so the metrics say little.
        check_results(tmp_path, config.test_evaluator.metric)


def check_results(folder, kinds):
    """Boxes and masks that were evaluated, in the order of COCO's files."""
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        expected, got = (
            json.loads((folder / f'{name}.{kind}.json').read_text())
            for name in ('expected', 'got')
        )
        assert len(got) == len(expected) > 20
        for one, other in zip(got, expected, strict=True):
            for key in ('image_id', 'category_id'):
                assert one[key] == other[key]
            assert one['score'] == pytest.approx(other['score'], abs=1e-4)
            if kind == 'bbox':
                assert one['bbox'] == pytest.approx(other['bbox'], abs=0.05)
            else:
                areas = [
                    int(mask.area(x['segmentation'])) for x in (one, other)
                ]
                assert areas[0] == pytest.approx(areas[1], abs=3)


def check_constant_sizes(folder, batch, height, width):
    """The graph has them and no loop over the pictures."""
    onnx = pytest.importorskip('onnx', reason='pip install onnx')
    graph = onnx.load(folder / 'model.onnx').graph
    assert 'Scan' not in {node.op_type for node in graph.node}
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [batch, height, width, 3]
    content = json.loads((folder / 'model.json').read_text())
    size = {k: content['input'][k] for k in ('batch', 'height', 'width')}
    assert size == {'batch': batch, 'height': height, 'width': width}


def test_folders_of_something_else_are_refused(tmp_path):
    config = short_config('segmentation/sfpn_transxnet_t_digits')
    with pytest.raises(UserError, match='is not an exported model'):
        exported_config(config, tmp_path)
    folder = write_exported(tmp_path, 'detection')
    with pytest.raises(UserError, match='is exported for detection and'):
        exported_config(config, folder)
    with pytest.raises(UserError, match='no file for openvino'):
        exported_config(config, folder, 'openvino')


def test_hooks_of_the_model_are_left_out(tmp_path):
    folder = write_exported(tmp_path, 'segmentation')
    config = short_config('segmentation/sfpn_transxnet_t_digits')
    hooks = [dict(type='EMAHook'), dict(type='ProfilerHook')]
    config.custom_hooks = hooks
    changed = exported_config(config, folder)
    assert changed.custom_hooks == hooks[1:]
    assert config.custom_hooks == hooks


def test_a_pipeline_that_normalises_is_refused(tmp_path):
    folder = write_exported(tmp_path, 'classification')
    model = ExportedModel(str(folder))
    sample = SimpleNamespace()
    data = dict(inputs=[torch.zeros(3, 32, 32)], data_samples=[sample])
    with pytest.raises(UserError, match='needs uint8'):
        model.test_step(data)


def test_pictures_of_another_size_are_a_user_error(tmp_path):
    folder = write_exported(tmp_path, 'classification', size=(32, 32))
    images = [torch.zeros(3, 48, 32, dtype=torch.uint8)]
    data = dict(inputs=images, data_samples=[SimpleNamespace()])
    with pytest.raises(UserError, match='was exported for 32 x 32'):
        ExportedModel(str(folder)).test_step(data)


def test_batches_with_sizes_of_their_own(tmp_path):
    """As mmdet, a batch is padded; as mmseg, label maps differ in size."""
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample

    samples = []
    for kind in (DetDataSample, SegDataSample):
        for height, width in ((40, 30), (20, 60)):
            meta = dict(ori_shape=(height, width), scale_factor=(2.0, 1.0))
            samples.append(kind(metainfo=meta))
    images = [
        torch.full((3, *size), 51, dtype=torch.uint8)
        for size in ((40, 60), (20, 120))
    ]
    folder = write_exported(tmp_path / 'detection', 'detection')
    data = [
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(images, samples[:2], strict=True)
    ]
    found = ExportedModel(str(folder)).test_step(pseudo_collate(data))
    assert [tuple(s.pred_instances.masks.shape) for s in found] == [
        (2, 40, 30),
        (2, 20, 60),
    ]
    assert np.allclose(found[1].pred_instances.bboxes[1], [0, 0, 30, 20])
    assert np.allclose(found[0].pred_instances.scores, [0.2, 0.1], atol=1e-5)
    folder = write_exported(tmp_path / 'segmentation', 'segmentation')
    data = dict(inputs=torch.stack([images[0]] * 2), data_samples=samples[2:])
    found = ExportedModel(str(folder)).test_step(data)
    assert [tuple(s.pred_sem_seg.shape) for s in found] == [(40, 30), (20, 60)]

"""Deploy heads in ONNX Runtime and OpenVINO against torch."""

import functools
import json

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from torch.export import Dim

from mmtransxnet.deploy import convert, runtime, tensorrt_operators
from mmtransxnet.deploy import export as stages
from mmtransxnet.deploy.formats.openvino import order_ties
from mmtransxnet.deploy.graphs import DeployForm
from mmtransxnet.deploy.graphs.nms import ABSENT, Suppression, detections
from mmtransxnet.deploy.graphs.roi_align import RoIExtractor
from tests.support.detectors import (
    CONFIGS,
    collate,
    deploy,
    detector,
    detector_config,
    pictures,
)
from tests.support.paths import ROOT
from tests.support.suite_configs import load
from tests.support.tensorrt import assert_documented

onnx = pytest.importorskip('onnx', reason='pip install onnx')
pytest.importorskip('onnxscript', reason='pip install onnxscript')

SIZES = [[(96, 128)], [(64, 64)], [(96, 128), (70, 150)]]


@functools.cache
def exported(name):
    """The deploy form and its ONNX model."""
    form = deploy(detector(detector_config(name), gain=1.0))
    return form, convert.to_onnx(form)


def run_onnxruntime(model):
    runtime = pytest.importorskip(
        'onnxruntime', reason='pip install onnxruntime'
    )
    session = runtime.InferenceSession(model.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    return lambda *inputs: session.run(
        None, {n: i.numpy() for n, i in zip(names, inputs, strict=True)}
    )


def run_openvino(model):
    openvino = pytest.importorskip('openvino', reason='pip install openvino')
    core = openvino.Core()
    network = core.read_model(model.SerializeToString())
    order_ties(network)
    compiled = core.compile_model(
        network, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )

    def run(*inputs):
        out = compiled([i.numpy() for i in inputs])
        return [np.array(out[i]) for i in range(len(compiled.outputs))]

    return run


@pytest.mark.parametrize('engine', [run_onnxruntime, run_openvino])
@pytest.mark.parametrize('name', CONFIGS)
def test_engines_find_what_torch_finds(name, engine):
    form, model = exported(name)
    run = engine(model)
    batches = [collate(pictures(sizes)) for sizes in SIZES]
    # Boxes without a size are none: no proposal in the second picture, then
    # in both.
    images, sizes = batches[-1]
    batches.append((images, sizes * torch.tensor([[1], [0]])))
    batches.append((images, sizes * 0))
    for inputs in batches:
        with torch.no_grad():
            expected = form(*inputs)
        for got, want in zip(run(*inputs), expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-3)
    assert not expected[0].any()


@pytest.mark.parametrize('name', CONFIGS)
def test_export_compares_and_writes_both_formats(name, tmp_path, monkeypatch):
    """All stages, with the graph above: tracing takes longest."""
    pytest.importorskip('onnxruntime', reason='pip install onnxruntime')
    pytest.importorskip('openvino', reason='pip install openvino')
    form, model = exported(name)
    monkeypatch.setattr(stages, 'deploy_form', lambda *_: form)
    monkeypatch.setattr(convert, 'to_onnx', lambda _: model)
    checkpoint = tmp_path / 'checkpoint.pth'
    checkpoint.write_bytes(b'its checksum is stored')
    config = detector_config(name)
    stages.export(
        detector(config, pyramid=False),
        config,
        stages.Request(tmp_path / 'exported'),
        checkpoint=checkpoint,
        dataset_meta={'classes': ['a', 'b', 'c', 'd']},
        report=lambda line: None,
    )
    content = json.loads((tmp_path / 'exported/model.json').read_text())
    assert (content['masks'] is None) == (name == 'RetinaNet')
    for parity in content['parity'].values():
        assert len(parity['compared']) == 12
        assert set(parity['largest_difference']) == {
            'boxes',
            'scores',
            *(['masks'] if content['masks'] else []),
        }
    photo = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    for engine in ('onnxruntime', 'openvino'):
        found = runtime.load(tmp_path / 'exported', engine)(photo)
        assert len(found.boxes) > 5


class Part(DeployForm):
    """A function with the inputs of a test, instead of pictures."""

    output_names = ()

    def __init__(self, function, inputs, shapes):
        super().__init__(None, None)
        self.function = function
        self.inputs = inputs
        self.shapes = shapes
        self.input_names = tuple(f'in_{i}' for i in range(len(inputs)))

    def example_inputs(self):
        return self.inputs

    def dynamic_shapes(self):
        return (self.shapes,)

    def forward(self, *inputs):
        return self.function(*inputs)


@functools.cache
def exported_suppression():
    config = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=9)
    suppression = Suppression(config, 'test_cfg')
    batch, number = Dim('batch', min=1), Dim('number', min=1)
    shapes = tuple({0: batch, 1: number} for _ in range(3))
    form = Part(
        lambda *inputs: detections(*inputs, suppression),
        candidates(2, 40),
        shapes,
    )
    return form, convert.to_onnx(form)


def candidates(batch, number):
    """Boxes, scores and labels with many ties, also of IoUs with 0.5."""
    corners = torch.randint(0, 4, (batch, number, 2, 2)).sort(dim=2)[0] * 2.0
    corners[:, :, 1] += 2
    scores = torch.randint(-1, 3, (batch, number)) / 2
    scores = torch.where(scores < 0, ABSENT, scores)
    labels = torch.randint(0, 3, (batch, number))
    return corners.flatten(2), scores, labels


@pytest.mark.parametrize('engine', [run_onnxruntime, run_openvino])
def test_suppression_of_ties_is_exact(engine):
    torch.manual_seed(0)
    form, model = exported_suppression()
    run = engine(model)
    for batch, number in [(1, 3000), (2, 300), (3, 5), (1, 1), (4, 300)]:
        inputs = candidates(batch, number)
        for got, want in zip(run(*inputs), form(*inputs), strict=True):
            np.testing.assert_array_equal(got, want)


@functools.cache
def exported_extractor(sampling_ratio):
    layer = dict(type='RoIAlign', output_size=3, sampling_ratio=sampling_ratio)
    extractor = RoIExtractor(SingleRoIExtractor(layer, 4, [4, 8, 16, 32]))
    features = tuple(
        torch.randn(2, 4, 256 // s, 320 // s) for s in (4, 8, 16, 32)
    )
    rois = regions(60)
    form = Part(
        lambda *inputs: (extractor(inputs[:4], inputs[4]),),
        (*features, rois),
        ({}, {}, {}, {}, {0: Dim('number', min=1)}),
    )
    return form, convert.to_onnx(form)


@pytest.mark.parametrize('engine', [run_onnxruntime, run_openvino])
@pytest.mark.parametrize('different', [1, 4, 1000])
def test_equal_scores_keep_their_order(engine, different):
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> '
        'best (float[B, N] x) => (float[B, 50] y, int64[B, 50] i) '
        '<int64[1] k = {50}> { y, i = TopK<axis = 1>(x, k) }'
    )
    run = engine(model)
    for shape in ((1, 50), (3, 51), (2, 4000)):
        draw = np.random.default_rng(different)
        scores = draw.integers(0, different, shape).astype(np.float32)
        values, index = run(torch.from_numpy(scores / 7 - 1))
        expected = np.argsort(-scores, axis=1, kind='stable')[:, :50]
        assert np.array_equal(index, expected)
        assert np.array_equal(
            values, np.take_along_axis(scores / 7 - 1, index, axis=1)
        )


def regions(number, largest=500.0):
    corners = (torch.rand(number, 2, 2) * largest).sort(dim=1)[0].flatten(1)
    return torch.cat([torch.randint(0, 2, (number, 1)), corners], dim=1)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('engine', [run_onnxruntime, run_openvino])
def test_regions_are_sampled_as_in_torch(engine, sampling_ratio):
    form, model = exported_extractor(sampling_ratio)
    run = engine(model)
    features = form.inputs[:4]
    # Also of the first level alone, empty ones, and outside of the maps.
    for rois in (regions(60), regions(1, 50.0), regions(5, 0.0)):
        (got,) = run(*features, rois)
        (want,) = form(*features, rois)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', CONFIGS)
def test_operators_are_those_of_tensorrt(name):
    _, model = exported(name)
    assert_documented(model)


def test_top_k_of_the_configs_is_within_tensorrts():
    """The micro models rank fewer candidates than these."""
    ranked = []
    for path in (ROOT / 'configs/detection').glob('*.py'):
        test_cfg = load(path).model.test_cfg
        parts = [test_cfg, *(test_cfg.get(n, {}) for n in ('rpn', 'rcnn'))]
        ranked += [
            part[key]
            for part in parts
            for key in ('nms_pre', 'max_per_img')
            if key in part
        ]
    assert 0 < max(ranked) <= tensorrt_operators.MAX_TOP_K

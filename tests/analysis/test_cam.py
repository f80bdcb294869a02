"""Class activation maps and their targets."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from sklearn.datasets import load_digits
from torch import nn

from mmtransxnet.analysis.cam import (
    class_activation,
    first_component,
    on_picture,
)
from mmtransxnet.analysis.drawing import draw_activations
from mmtransxnet.analysis.observation import tensors
from mmtransxnet.analysis.targets import (
    _detection,
    _of_detection,
    find_target,
)
from mmtransxnet.utils.errors import UserError
from tests.support.detectors import CONFIGS, detector, detector_config
from tests.support.models import fill_by_name
from tests.support.suite_configs import build, micro_config

OTHERS = dict(
    classifier='classification/transxnet_t',
    sfpn='segmentation/sfpn_transxnet_t',
    upernet='segmentation/upernet_transxnet_t',
)
NAMES = [*OTHERS, *CONFIGS]
SAMPLES = dict(
    classifier=DataSample, sfpn=SegDataSample, upernet=SegDataSample
)
SIZE = (72, 96)
"""Height and width of the image; the picture has half of it."""


def make(name):
    if name in CONFIGS:
        return detector(detector_config(name), pyramid=False)
    return fill_by_name(build(micro_config(OTHERS[name]))).eval()


@pytest.fixture(scope='module')
def models():
    torch.manual_seed(0)
    return {name: make(name) for name in NAMES}


def picture(seed=0):
    return (
        np.random.RandomState(seed)
        .randint(0, 256, (SIZE[0] // 2, SIZE[1] // 2, 3))
        .astype('uint8')
    )


def data_of(name, image):
    """A picture after a test pipeline that doubles its size."""
    sample = SAMPLES.get(name, DetDataSample)(
        metainfo=dict(
            img_shape=SIZE, ori_shape=image.shape[:2], scale_factor=(2.0, 2.0)
        )
    )
    if name in ('sfpn', 'upernet'):
        sample.set_metainfo(dict(img_padding_size=(0, 0, 0, 0)))
    resized = cv2.resize(image, SIZE[::-1])
    inputs = tensors([resized])
    if name == 'classifier':
        inputs = torch.stack(inputs)
    return dict(inputs=inputs, data_samples=[sample])


def prepared(model, name):
    batch = model.data_preprocessor(data_of(name, picture()))
    return batch['inputs'], batch['data_samples']


@pytest.mark.parametrize('method', ['grad-cam', 'eigen-cam'])
@pytest.mark.parametrize('name', NAMES)
def test_map_of_each_model(models, name, method):
    """As large as the picture, for each stage; another for another one."""
    model = models[name]
    maps = [
        class_activation(model, data_of(name, picture(i)), None, 1, method)
        for i in range(2)
    ]
    for found in maps:
        assert found.map.shape == picture().shape[:2]
        assert found.map.min() >= 0
        assert found.map.max() == pytest.approx(1)
    assert not np.allclose(maps[0].map, maps[1].map, atol=0.05)


@pytest.mark.parametrize('name', NAMES)
def test_randomised_weights_change_the_map(models, name):
    """Of the layers behind the stage: the map depends on the target."""
    data = data_of(name, picture())
    trained = class_activation(models[name], data, stage=2)
    other = make(name)
    for key, parameter in other.named_parameters():
        if key.startswith('backbone.network.6') and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    found = class_activation(other, data, stage=2)
    assert not np.allclose(found.map, trained.map, atol=0.05)


@pytest.mark.parametrize('name', ['classifier', 'MaskRCNN'])
def test_formula(models, name):
    """Grad-CAM written out."""
    model = models[name]
    inputs, samples = prepared(model, name)
    target = find_target(model, inputs, samples)
    kept = []
    stage = model.backbone.network[4]
    handle = stage.register_forward_hook(lambda *args: kept.append(args[2]))
    score = target.compute(inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    expected = (weights * kept[0]).sum(1)[0].relu().detach().numpy()
    expected = cv2.resize(
        (expected - expected.min()) / np.ptp(expected), inputs.shape[:1:-1]
    )
    expected = (expected - expected.min()) / np.ptp(expected)
    found = class_activation(model, data_of(name, picture()), stage=2)
    expected = on_picture(expected, samples[0].metainfo)
    np.testing.assert_allclose(found.map, expected / expected.max(), atol=1e-4)


def test_score_of_a_class(models):
    model = models['classifier']
    inputs, samples = prepared(model, 'classifier')
    logits = model(inputs, mode='tensor')[0]
    target = find_target(model, inputs, samples)
    assert target.label == int(logits.argmax())
    assert target.score == pytest.approx(float(logits.softmax(0).max()))
    chosen = find_target(model, inputs, samples, 3)
    assert chosen.compute(inputs) == logits[3]


@pytest.mark.parametrize('name', ['sfpn', 'upernet'])
def test_score_of_a_segment(models, name):
    model = models[name]
    inputs, samples = prepared(model, name)
    logits = model(inputs, mode='tensor')[0]
    with torch.no_grad():
        (predicted,) = model.predict(inputs, samples)
    labels = predicted.pred_sem_seg.data[0]
    target = find_target(model, inputs, samples)
    assert target.label == int(labels.flatten().mode().values)
    np.testing.assert_array_equal(target.mask, labels == target.label)
    torch.testing.assert_close(
        target.compute(inputs), logits[target.label].mean()
    )


def test_score_of_a_location(models):
    """Of RetinaNet: exactly the score of each detection."""
    model = models['RetinaNet']
    inputs, samples = prepared(model, 'RetinaNet')
    scores = set()
    for rank in range(8):
        target = find_target(model, inputs, samples, rank)
        recomputed = float(target.compute(inputs).sigmoid())
        assert recomputed == pytest.approx(target.score, abs=1e-5)
        scores.add(round(target.score, 6))
    assert len(scores) > 4


@pytest.mark.parametrize('name', ['MaskRCNN', 'CascadeRCNN'])
def test_score_of_a_region(models, name):
    """The logits of the heads for the detected box."""
    model = models[name]
    inputs, samples = prepared(model, name)
    target = find_target(model, inputs, samples, 1)
    box = torch.from_numpy(target.box) * 2  # the pipeline doubles the size
    rois = torch.cat((torch.zeros(1), box))[None]
    maps, heads = model.extract_feat(inputs), model.roi_head
    if name == 'MaskRCNN':
        boxes = [heads._bbox_forward(maps, rois)]
        masks = [heads._mask_forward(maps, rois)]
    else:
        boxes = [heads._bbox_forward(i, maps, rois) for i in range(3)]
        masks = [heads._mask_forward(i, maps, rois) for i in range(3)]
    expected = sum(b['cls_score'] for b in boxes)[0, target.label] / len(boxes)
    torch.testing.assert_close(target.compute(inputs), expected)
    logits = sum(m['mask_preds'] for m in masks)[0, target.label] / len(masks)
    of_mask = find_target(model, inputs, samples, 1, 'mask')
    torch.testing.assert_close(of_mask.compute(inputs), logits.mean())
    assert of_mask.mask.shape == picture().shape[:2]


@pytest.mark.parametrize('name', list(CONFIGS))
def test_stage_of_a_detection(models, name):
    """The default: small objects are read from maps of small strides."""
    model = models[name]
    found = class_activation(model, data_of(name, picture()))
    assert found.stage == min(found.target.stage, 3)
    inputs, samples = prepared(model, name)
    if name == 'RetinaNet':
        # Anchors of a level have 4 to 6.4 times its stride, in three shapes.
        for rank in range(8):
            target = find_target(model, inputs, samples, rank)
            assert 1 <= target.stage <= 5
        return
    detection = _detection(model, inputs, samples, 0)
    for side, stage in ((50, 0), (120, 1), (240, 2), (900, 3)):
        box = torch.tensor([[0.0, 0, side, side]])
        large = replace(detection, inner_box=box)
        for part in ('box', 'mask'):
            target = _of_detection(model, inputs, samples[0], large, part)
            assert target.stage == stage


def test_nothing_is_changed(models):
    """Neither modes nor gradients of a training that is under way."""
    model = models['classifier'].train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    frozen = next(model.parameters()).requires_grad_(False)
    class_activation(model, data_of('classifier', picture()))
    assert model.training
    assert model.backbone.patch_embed.training
    assert not frozen.requires_grad
    for parameter in model.parameters():
        assert parameter.requires_grad or parameter is frozen
        assert (parameter.grad == 1).all()
        parameter.grad = None
        parameter.requires_grad_(True)
    model.eval()


def test_crop_and_scale():
    """Where the model sees the middle of the picture only."""
    meta = dict(
        img_shape=(20, 20), ori_shape=(60, 100), scale_factor=(0.5, 0.5)
    )
    values = np.ones((32, 32), np.float32)  # padded
    found = on_picture(values, meta)
    rows, columns = np.nonzero(~np.isnan(found))
    assert (rows.min(), rows.max()) == (10, 49)
    assert (columns.min(), columns.max()) == (30, 69)
    assert (found[10:50, 30:70] == 1).all()


def test_first_component():
    """Channels that follow one pattern: the pattern, whatever its sign."""
    pattern = np.zeros((6, 7))
    pattern[2, 3] = 5.0
    for sign in (1, -1):
        activations = np.stack([sign * 2 * pattern, sign * pattern])
        found = first_component(activations)
        assert np.unravel_index(found.argmax(), found.shape) == (2, 3)
        correlation = np.corrcoef(found.ravel(), pattern.ravel())[0, 1]
        assert correlation == pytest.approx(1)


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('classifier', dict(wanted=1000), 'class 1000: .* 0 to 999'),
        ('sfpn', dict(wanted=150), 'class 150: .* 0 to 149'),
        ('RetinaNet', dict(wanted=400), 'detection 400: the model finds'),
        ('RetinaNet', dict(part='mask'), 'no masks'),
        ('classifier', dict(part='mask'), 'no masks'),
        ('classifier', dict(part='ear'), "part 'ear'"),
        ('classifier', dict(stage=4), 'stage 5: the model runs the stages 1'),
        ('classifier', dict(method='x-ray'), "method 'x-ray'"),
    ],
)
def test_errors(models, name, arguments, message):
    with pytest.raises(UserError, match=message):
        class_activation(models[name], data_of(name, picture()), **arguments)


@pytest.mark.parametrize('name', ['classifier', 'sfpn', 'CascadeRCNN'])
def test_drawing(models, name, tmp_path):
    found = [
        class_activation(models[name], data_of(name, picture()), method=method)
        for method in ('grad-cam', 'eigen-cam')
    ]
    draw_activations(picture(), found, tmp_path / 'new/cam.png')
    drawn = cv2.imread(str(tmp_path / 'new/cam.png'))
    assert drawn.std() > 20


SIDE = 32
"""Side of a digit in pixels, in pictures of 96."""


def scenes(digits, generator):
    """Each digit at a random place on noise; the places' corners."""
    images = generator.randint(0, 60, (len(digits), 96, 96, 3))
    corners = generator.randint(0, 96 - SIDE, (len(digits), 2))
    for image, digit, (top, left) in zip(images, digits, corners, strict=True):
        large = cv2.resize(digit * 11, (SIDE, SIDE))[..., None]
        image[top : top + SIDE, left : left + SIDE] += large.astype(int)
    return images.astype('uint8'), corners


class Pass(nn.Module):
    """A stage that changes nothing."""

    def forward(self, x, table):
        return x


def ink_detector():
    """A classifier whose class 1 is bright and nothing else."""
    model = build(micro_config('classification/transxnet_t_digits'))
    backbone = model.backbone
    backbone.patch_embed = nn.AvgPool2d(4)
    for position in range(7):
        backbone.network[position] = (
            nn.AvgPool2d(2) if position % 2 else Pass()
        )
    backbone.norm6 = nn.Identity()
    model.head.fc = nn.Linear(3, 10)
    nn.init.zeros_(model.head.fc.weight)
    nn.init.ones_(model.head.fc.weight[1])
    return model


@pytest.mark.parametrize('stage', [0, 1])
def test_energy_lies_on_the_digit(stage):
    """Within the digit's square and a cell of the map around it."""
    digits = load_digits().images[:10]
    images, corners = scenes(digits, np.random.RandomState(0))
    model = ink_detector()
    cell = 4 * 2**stage
    for image, (top, left) in zip(images, corners, strict=True):
        meta = dict(img_shape=(96, 96), ori_shape=(96, 96))
        data = dict(
            inputs=torch.stack(tensors([image])),
            data_samples=[DataSample(metainfo=meta)],
        )
        found = class_activation(model, data, 1, stage).map
        inside = found[
            max(0, top - cell) : top + SIDE + cell,
            max(0, left - cell) : left + SIDE + cell,
        ]
        assert inside.sum() > 0.95 * found.sum()

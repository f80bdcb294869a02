"""Kernels, attention and scales, against what the modules compute."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmtransxnet.analysis.drawing import (
    draw_attention,
    draw_kernels,
    draw_scales,
    draw_spread,
)
from mmtransxnet.analysis.dynamics import (
    attention_of,
    kernel_spread,
    kernels_of,
    observe,
    observe_backbone,
    observe_each,
)
from mmtransxnet.utils.errors import UserError
from tests.support.models import make_input, micro_model
from tests.support.suite_configs import build, micro_config

BLOCKS = [0, 1, 2, 2, 3]
"""Stages of the micro model's blocks."""


@pytest.fixture(scope='module')
def backbone():
    return micro_model().eval()


@pytest.fixture(scope='module')
def observed(backbone):
    return observe_backbone(backbone, make_input(0, (1, 3, 96, 64)))


def inputs_of(backbone, name, image):
    """Inputs and output of a module while the network runs."""
    kept = []
    handle = backbone.get_submodule(name).register_forward_hook(
        lambda _, inputs, output: kept.append((inputs, output))
    )
    with torch.no_grad():
        backbone(image)
    handle.remove()
    return kept[0]


UNIT = 'network.4.1.token_mixer.{}'


def test_made_kernels_are_those_of_the_convolution(backbone, observed):
    """Convolving with them gives what IDConv gives, but for its bias."""
    image = make_input(0, (1, 3, 96, 64))
    (x,), output = inputs_of(backbone, UNIT.format('local_unit'), image)
    made = torch.from_numpy(observed.kernels[3])
    convolved = F.conv2d(x, made[:, None], padding=3, groups=len(made))
    bias = (output - convolved).flatten(2)
    torch.testing.assert_close(
        bias, bias.mean(-1, keepdim=True).expand_as(bias), atol=1e-4, rtol=0
    )
    # A softmax over the learned kernels: between their extremes.
    learned = observed.learned[3]
    assert (made.numpy() <= learned.max(0) + 1e-6).all()
    assert (made.numpy() >= learned.min(0) - 1e-6).all()


def test_static_kernels(backbone):
    """Equal learned kernels: the made one is the same for any picture."""
    unit = micro_model().network[2][0].token_mixer.local_unit
    with torch.no_grad():
        unit.weight[:] = unit.weight[:1].clone()
        made = kernels_of(unit.eval(), torch.randn(2, 16, 9, 9))
    for kernel in made:
        torch.testing.assert_close(kernel, unit.weight[0])


def test_attention_is_that_of_the_module(backbone):
    """Its rows sum to 1; applied to the values, it is OSRA's output."""
    image = make_input(0, (1, 3, 96, 64))
    name = UNIT.format('global_unit')
    (x, position), output = inputs_of(backbone, name, image)
    unit = backbone.get_submodule(name)
    with torch.no_grad():
        values = unit.kv(unit.local_conv(unit.sr(x))).chunk(2, 1)[1]
        found = attention_of(unit, x, position)
        values = unit._heads(values)[0]
    height, width = found.shape
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) / height, (column + 0.5) / width
            rows = found.of(y, x)
            assert rows.shape == (unit.num_heads, *found.reduced)
            np.testing.assert_allclose(rows.sum((1, 2)), 1, rtol=1e-5)
            mixed = torch.from_numpy(rows).flatten(1)[:, None] @ values
            torch.testing.assert_close(
                mixed.flatten(), output[0, :, row, column], atol=1e-4, rtol=0
            )


def test_position_alone(observed):
    """Another picture has the same, and other attention with content."""
    other = observe_backbone(
        micro_model().eval(), make_input(1, (1, 3, 96, 64))
    )
    for first, second in zip(
        observed.attentions, other.attentions, strict=True
    ):
        alone = first.of_position(0.3, 0.9)
        np.testing.assert_allclose(alone.sum((1, 2)), 1, rtol=1e-5)
        np.testing.assert_array_equal(alone, second.of_position(0.3, 0.9))
        assert not np.allclose(first.of(0.3, 0.9), second.of(0.3, 0.9))
        assert not np.allclose(first.of(0.3, 0.9), alone)


def test_scales_that_are_known():
    """Kernels that add nothing, the input, and twice the input."""
    backbone = micro_model().eval()
    for stage in range(4):
        for block in backbone.network[2 * stage]:
            for i, conv in enumerate(block.mlp.dwconv.proj):
                conv.weight.data.zero_()
                conv.bias.data.zero_()
                middle = conv.weight.size(-1) // 2
                conv.weight.data[..., middle, middle] = i
    found = observe_backbone(backbone, make_input(0, (1, 3, 64, 64)))
    assert len(found.energies) == len(BLOCKS)
    for energies in found.energies:
        np.testing.assert_allclose(energies, [0, 1, 4, 9], rtol=1e-4)


def test_spread_that_is_known():
    """Two classes with constant kernels, beside two that vary inside."""
    kernels = [np.full((2, 3, 3), value) for value in (1.0, 1.0, 3.0, 3.0)]
    spread = kernel_spread(kernels, list('aabb'))
    assert spread.relative == pytest.approx(1 / 2)
    assert spread.between == pytest.approx(1)
    assert spread.explained[0] == pytest.approx(1)
    assert abs(spread.points[0, 0]) == pytest.approx(math.sqrt(18))
    assert kernel_spread(kernels, list('abab')).between == pytest.approx(0)
    static = kernel_spread([kernels[0]] * 3)
    assert static.relative == 0
    assert math.isnan(static.between)
    with pytest.raises(UserError, match='needs 3'):
        kernel_spread(kernels[:2])


@pytest.mark.parametrize(
    'name',
    [
        'classification/transxnet_t',
        'detection/retinanet_transxnet_t',
        'detection/maskrcnn_transxnet_t',
        'detection/cascade_maskrcnn_transxnet_t_ms_3x',
        'segmentation/sfpn_transxnet_t',
        'segmentation/upernet_transxnet_t',
    ],
)
def test_each_model_of_the_suite(name):
    model = build(micro_config(name))
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    found = observe(model, {'inputs': [image]})
    assert found.stages == BLOCKS
    for values in (
        found.kernels,
        found.learned,
        found.attentions,
        found.energies,
    ):
        assert len(values) == len(BLOCKS)
    # At the design size: the position table is a parameter.
    assert found.attentions[0].of(0.5, 0.5).sum() == pytest.approx(1)
    assert model.training
    for module in model.modules():
        assert not module._forward_pre_hooks


def test_several_pictures():
    """As one after another; what is large is kept of the first only."""
    model = build(micro_config('classification/transxnet_t'))
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    data = [{'inputs': image[None]} for image in images]
    found = observe_each(model, iter(data))
    for item, observed in zip(data, found, strict=True):
        alone = observe(model, item)
        for first, second in zip(observed.kernels, alone.kernels, strict=True):
            np.testing.assert_array_equal(first, second)
    assert [len(observed.attentions) for observed in found] == [5, 0, 0, 0]


def test_drawings(observed, backbone, tmp_path):
    draw_kernels(observed, tmp_path / 'kernels.png')
    image = np.zeros((96, 64, 3), 'uint8')
    draw_attention(observed, image, tmp_path / 'attention.png', 1, 0)
    draw_scales(observed, tmp_path / 'scales.png')
    several = [
        observe_backbone(backbone, make_input(i, (1, 3, 64, 64)))
        for i in range(4)
    ]
    draw_spread(several, tmp_path / 'spread.png')
    draw_spread(several, tmp_path / 'classes.png', ['a', 'a', 'b', 'b'])
    for name in ('kernels', 'attention', 'scales', 'spread', 'classes'):
        assert cv2.imread(str(tmp_path / f'{name}.png')).std() > 20


def test_pixel_outside(observed):
    with pytest.raises(UserError, match=r'pixel \(1\.5, 0\)'):
        observed.attentions[0].of(1.5, 0)

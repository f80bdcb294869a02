"""Effective receptive fields, against cases with a known answer."""

import numpy as np
import pytest
import torch
from torch import nn

from mmtransxnet.analysis.drawing import draw_fields
from mmtransxnet.analysis.erf import (
    create_peer,
    model_fields,
    peer_fields,
    receptive_fields,
    smallest_square,
)
from mmtransxnet.utils.errors import UserError
from tests.support.detectors import CONFIGS
from tests.support.models import fill_by_name, micro_model
from tests.support.suite_configs import build, micro_config


def convolutions(count, weight=0.1):
    """3x3 convolutions with equal weights, one channel."""
    layers = []
    for _ in range(count):
        conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(conv.weight, weight)
        layers.append(conv)
    return nn.Sequential(*layers)


def field_of(function, size=33, channels=1):
    image = torch.randn(1, channels, size, size)
    (field,) = receptive_fields(lambda x: [function(x)], [image], ['map'])
    return field.contribution


def picture(size=96, seed=0):
    values = np.random.RandomState(seed).randint(0, 256, (size, size, 3))
    return values.astype('uint8')


@pytest.mark.parametrize('count', [1, 3, 6])
def test_stack_of_convolutions(count):
    """``2 n + 1`` pixels wide, the n-fold convolution of a box."""
    line = np.ones(1)
    for _ in range(count):
        line = np.convolve(line, np.ones(3) / 3)
    expected = np.zeros((33, 33))
    inside = slice(16 - count, 17 + count)
    expected[inside, inside] = np.outer(line, line)
    found = field_of(convolutions(count))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert smallest_square(found, 1.0).side == 2 * count + 1


def test_global_pooling_is_uniform():
    found = field_of(lambda x: x.mean(dim=(2, 3), keepdim=True), channels=3)
    np.testing.assert_allclose(found, 1 / found.size, rtol=1e-5)
    # 17 * 17 = 289 of 33 * 33 = 1089 pixels are 26.5%, 19 * 19 are 33.1%.
    assert smallest_square(found, 0.3).side == 19
    assert smallest_square(found, 0.3).area == pytest.approx(361 / 1089)


def test_negative_influence_does_not_count():
    """A pixel that only lowers the centre contributes nothing."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 1.0)
    with torch.no_grad():
        conv.weight[..., 0] = -1.0
    found = field_of(conv)
    assert not found[:, 15].any()
    np.testing.assert_allclose(found[15:18, 16:18], 1 / 6)


def test_mean_over_pictures():
    """Pictures that block different halves: the mean has both."""

    def half(x):
        # The gradient is the step: 1 where the picture is positive.
        return x.relu().sum(dim=(2, 3), keepdim=True)

    image = torch.ones(1, 1, 4, 4)
    image[..., :2] = -1
    (field,) = receptive_fields(lambda x: [half(x)], [image, -image], ['map'])
    np.testing.assert_allclose(field.contribution, 1 / 16)


def test_squares_grow_with_the_share_and_end_at_the_border():
    uniform = np.full((8, 8), 1 / 64)
    sides = [smallest_square(uniform, s).side for s in (0.01, 0.5, 0.99, 1)]
    assert sides == [1, 7, 8, 8]
    assert smallest_square(uniform, 1).area == 1


NAMES = [
    'classification/transxnet_t',
    *CONFIGS.values(),
    'segmentation/sfpn_transxnet_t',
    'segmentation/upernet_transxnet_t',
]


@pytest.mark.parametrize('name', NAMES)
def test_each_model_of_the_suite(name):
    """A field for each stage; later stages see more; nothing is changed."""
    config = micro_config(name)
    model = build(config)
    fill_by_name(model.backbone)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    needed = [p.requires_grad for p in model.parameters()]
    fields = model_fields(model, [picture()], 96)
    assert [field.stage[:7] for field in fields] == [
        f'stage {n}' for n in (1, 2, 3, 4)
    ]
    for field in fields:
        assert field.contribution.shape == (96, 96)
        assert field.contribution.sum() == pytest.approx(1)
        assert (field.contribution >= 0).all()
    widths = [field.squares()[2].side for field in fields]
    assert widths[0] < widths[-1]
    assert model.training
    assert needed == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_peers_see_the_same_pictures(tmp_path):
    """A convolutional network and one with windows, beside each other."""
    fields = {}
    for name in ('resnet10t', 'swin_tiny'):
        peer = create_peer(name, 64)
        fields[name] = peer_fields(peer, [picture()], 64)
        assert [f.stage for f in fields[name]] == [
            f'stride {s}' for s in (4, 8, 16, 32)
        ]
    draw_fields(fields, tmp_path / 'new/erf.png')
    assert (tmp_path / 'new/erf.png').stat().st_size > 10_000


def test_weights_of_a_peer():
    state = create_peer('resnet10t', 64).state_dict()
    with_them = [create_peer('resnet10t', 64, state) for _ in range(2)]
    first, second = (peer_fields(p, [picture()], 64) for p in with_them)
    np.testing.assert_array_equal(
        first[0].contribution, second[0].contribution
    )
    del state['conv1.0.weight']
    with pytest.raises(UserError, match=r'do not fit.*conv1\.0\.weight'):
        create_peer('resnet10t', 64, state)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: create_peer('no_such_net'), 'no such model'),
        (lambda: create_peer('swin_tiny', 65), None),
        (lambda: model_fields(nn.Linear(1, 1), [picture()]), 'Linear'),
        (lambda: receptive_fields(lambda x: [x], [], ['map']), 'no picture'),
        (
            lambda: field_of(lambda x: 0 * x),
            'does not depend on the picture',
        ),
    ],
)
def test_errors(call, message):
    if message is None:  # padded by timm
        call()
        return
    with pytest.raises(UserError, match=message):
        call()


def test_too_small_a_picture():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = micro_model()

    with pytest.raises(UserError, match='at least 32'):
        model_fields(Model(), [picture()], 16)

"""The deploy forms compute what the models predict."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtransxnet.deploy.graphs import deploy_form
from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.operators import conv_per_sample
from mmtransxnet.deploy.graphs.resampling import (
    bin_averages,
    resize_table,
    with_border,
)
from mmtransxnet.utils.errors import UserError
from tests.support.compare import assert_all_close
from tests.support.deploy import pictures, short_model
from tests.support.models import make_input, micro_model

# The design size, larger, smaller, and one position in the last stage.
SHAPES = [(2, 3, 64, 64), (3, 3, 75, 130), (1, 3, 33, 40), (1, 3, 32, 32)]


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('batch', ['any', 'constant'])
def test_backbone(shape, batch):
    model = micro_model().eval()
    form = DeployBackbone(model, None if batch == 'any' else shape[0]).eval()
    image = make_input(1, shape)
    with torch.no_grad():
        assert_all_close(form(image), model(image), 1e-4, 'deploy form')


def test_the_model_is_not_changed():
    model = short_model('segmentation/upernet_transxnet_t_digits')
    before = str(model)
    deploy_form(model)
    assert str(model) == before


def test_earlier_outputs_only():
    model = micro_model(out_indices=(0, 2)).eval()
    form = DeployBackbone(model, None).eval()
    image = make_input(1, SHAPES[1])
    with torch.no_grad():
        assert_all_close(form(image), model(image), 1e-4, 'deploy form')


@pytest.mark.parametrize(
    ('length', 'bins'), [(7, 7), (56, 7), (19, 7), (2, 6)]
)
def test_averages(length, bins):
    x = make_input(2, (1, 2, length, 1))
    matrix = bin_averages(length, bins, x)
    expected = F.adaptive_avg_pool2d(x, (bins, 1))
    torch.testing.assert_close(matrix @ x, expected)


@pytest.mark.parametrize(
    ('height', 'width', 'num_k'),
    [
        (16, 16, 64),
        (20, 10, 4),
        (40, 16, 91),
        (3, 5, 300),
        (7, 1, 3),
        (1, 7, 16),
        (1, 1, 1),
    ],
)
def test_table(height, width, num_k):
    table = make_input(3, (1, 2, 256, 16))
    expected = F.interpolate(table, (height * width, num_k), mode='bicubic')
    resized = resize_table(with_border(table[0]), height, width, num_k)
    torch.testing.assert_close(resized, expected[0], atol=1e-4, rtol=0)


def test_kernel_of_each_sample():
    x, kernel = make_input(4, (2, 3, 8, 9)), make_input(5, (2, 3, 5, 5))
    bias = make_input(6, (2, 3))
    out = conv_per_sample(x, kernel, bias)
    for i in range(2):
        expected = F.conv2d(
            x[i], kernel[i][:, None], bias[i], padding=2, groups=3
        )
        torch.testing.assert_close(out[i], expected)


def test_what_cannot_be_exported_is_named():
    with pytest.raises(UserError, match='Linear cannot be exported'):
        deploy_form(nn.Linear(1, 1))


def test_another_backbone_is_named():
    model = short_model('classification/transxnet_t_digits')
    model.backbone = nn.Identity()
    with pytest.raises(UserError, match='backbone is a Identity'):
        deploy_form(model)


def test_classifier():
    model = short_model('classification/transxnet_t_digits')
    form = deploy_form(model)
    images = pictures(2, 75, 64)
    with torch.no_grad():
        (scores,) = form(images)
        (expected,) = form.reference(model)(images)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize('name', ['sfpn', 'upernet'])
def test_segmentor(name):
    model = short_model(f'segmentation/{name}_transxnet_t_digits')
    form = deploy_form(model)
    images, size = pictures(2, 75, 64), torch.tensor([90, 60])
    with torch.no_grad():
        labels, scores = form(images, size)
        expected, probabilities = form.reference(model)(images, size)
    assert labels.dtype == torch.uint8
    assert labels.shape == (2, 90, 60)
    assert (labels == expected).float().mean() > 0.9999
    assert len(labels.unique()) > 1, 'the test shows nothing'
    torch.testing.assert_close(scores, probabilities, atol=1e-5, rtol=0)


def test_sliding_windows_are_named():
    model = short_model('segmentation/sfpn_transxnet_t_digits')
    model.test_cfg.mode = 'slide'
    with pytest.raises(UserError, match='mode=whole'):
        deploy_form(model)

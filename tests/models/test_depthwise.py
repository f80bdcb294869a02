"""The depthwise convolution equals F.conv2d, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtransxnet.models import depthwise
from mmtransxnet.models.depthwise import DepthwiseConv2d, depthwise_conv2d


def inputs(shape, kernel_size, dtype=torch.float64):
    channels = shape[1]
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    weight = torch.randn(channels, 1, kernel_size, kernel_size, dtype=dtype)
    bias = torch.randn(channels, dtype=dtype)
    return x, weight.requires_grad_(), bias.requires_grad_()


def plain(x, weight, bias):
    padding = weight.size(-1) // 2
    return F.conv2d(x, weight, bias, padding=padding, groups=x.size(1))


@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7, 9])
@pytest.mark.parametrize(
    'shape', [(2, 3, 9, 6), (1, 4, 1, 1), (3, 2, 2, 11), (1, 1, 20, 20)]
)
@pytest.mark.parametrize('channels_last', [False, True])
def test_equals_plain(shape, kernel_size, channels_last):
    args = inputs(shape, kernel_size)
    x = args[0]
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    ours = depthwise_conv2d(x, *args[1:])
    expected = plain(*args)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(ours, args, upstream),
        torch.autograd.grad(expected, args, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_gradcheck_first_and_second_order():
    args = inputs((2, 2, 5, 4), 5)
    assert torch.autograd.gradcheck(depthwise_conv2d, args)
    assert torch.autograd.gradgradcheck(depthwise_conv2d, args)


@pytest.mark.parametrize('needed', [0, 1, 2])
def test_only_one_input_needs_a_gradient(needed):
    args = [a.detach() for a in inputs((2, 3, 8, 8), 7)]
    args[needed].requires_grad_()
    (mine,) = torch.autograd.grad(depthwise_conv2d(*args).sum(), args[needed])
    (theirs,) = torch.autograd.grad(plain(*args).sum(), args[needed])
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize('kernel_size', [3, 7])
def test_bfloat16_autocast(kernel_size):
    args = inputs((2, 3, 8, 8), kernel_size, torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        out = depthwise_conv2d(*args)
    assert out.dtype == torch.bfloat16
    gradients = torch.autograd.grad(out.float().square().sum(), args)
    expected = torch.autograd.grad(plain(*args).square().sum(), args)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() < 0.05 * theirs.abs().max()


def test_the_fast_path_is_taken_in_training(monkeypatch):
    """Otherwise the tests above compare F.conv2d with itself."""
    calls = []
    apply = depthwise._DepthwiseConv.apply
    monkeypatch.setattr(
        depthwise._DepthwiseConv,
        'apply',
        lambda *args: calls.append(1) or apply(*args),
    )
    conv = DepthwiseConv2d(4, 7)
    image = torch.randn(1, 4, 8, 8)
    conv(image)
    assert len(calls) == 1
    with torch.no_grad():
        conv(image)
    conv.requires_grad_(False)(image)
    DepthwiseConv2d(4, 3)(image)
    assert len(calls) == 1


def test_module_is_a_convolution_by_name_and_state():
    conv = DepthwiseConv2d(4, 7)
    assert isinstance(conv, nn.Conv2d)
    reference = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    reference.load_state_dict(conv.state_dict())
    image = torch.randn(2, 4, 9, 5)
    torch.testing.assert_close(conv(image), reference(image))

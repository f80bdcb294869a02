"""Convolutions together with what follows equal the two apart."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.fx
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmtransxnet.kernels.channels_last import GELU
from mmtransxnet.kernels.depthwise import DepthwiseConv2d
from mmtransxnet.kernels.fused_convolution import conv_add
from mmtransxnet.kernels.settings import plain
from mmtransxnet.models.inference_form import ConvAct
from tests.support.compare import assert_close
from tests.support.models import micro_model


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))

    @property
    def fused(self):
        return sum('_convolution_pointwise' in name for name in self.names)


def frozen(conv):
    return conv.requires_grad_(False).to(memory_format=torch.channels_last)


CONVS = {
    'pointwise': lambda: nn.Conv2d(8, 8, 1),
    'without bias': lambda: nn.Conv2d(8, 8, 1, bias=False),
    'depthwise': lambda: DepthwiseConv2d(8, 7),
    'strided': lambda: nn.Conv2d(8, 8, 7, stride=4, padding=3, groups=8),
}


@pytest.fixture(params=CONVS)
def conv(request):
    return frozen(CONVS[request.param]())


@pytest.fixture(params=['contiguous', 'channels last'])
def image(request):
    x = torch.randn(2, 8, 13, 9)
    last = request.param == 'channels last'
    return x.to(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize('act', [GELU, nn.GELU])
def test_activation(conv, image, act):
    layers = ConvAct(conv, act()).eval()
    with Operators() as ran:
        out = layers(image)
    assert ran.fused == 1
    with plain(), Operators() as ran:
        expected = layers(image)
    assert ran.fused == 0
    assert_close(out, expected, 1e-6, 'output')


def test_sum(conv, image):
    other = torch.randn_like(conv(image))
    before = other.clone()
    with Operators() as ran:
        out = conv_add(conv, image, other)
    assert ran.fused == 1
    assert torch.equal(other, before)
    with plain():
        assert_close(out, conv_add(conv, image, other), 1e-6, 'sum')


def test_autocast(image):
    conv = frozen(nn.Conv2d(8, 8, 1))
    layers = ConvAct(conv, GELU()).eval()
    expected = layers(image)
    with torch.autocast('cpu', torch.bfloat16):
        out = layers(image)
        summed = conv_add(conv, image, out)
    assert out.dtype == summed.dtype == torch.bfloat16
    assert_close(out.float(), expected, 0.02, 'activation')
    assert_close(summed.float(), conv(image) + expected, 0.02, 'sum')


def hooked(conv, act):
    conv.register_forward_hook(lambda *_: None)


def replaced(conv, act):
    conv.forward = lambda x: torch.zeros(1)


def trained(conv, act):
    conv.requires_grad_(True)


@pytest.mark.parametrize('change', [hooked, replaced, trained])
def test_what_must_be_called_is_called(change):
    conv, act = frozen(nn.Conv2d(8, 8, 1)), GELU()
    change(conv, act)
    with Operators() as ran:
        ConvAct(conv, act)(torch.randn(1, 8, 5, 5))
    assert ran.fused == 0


@pytest.mark.parametrize('act', [nn.GELU('tanh'), nn.ReLU()], ids=str)
def test_other_activations(act, image):
    conv = frozen(nn.Conv2d(8, 8, 1))
    out = ConvAct(conv, act)(image)
    assert_close(out, act(conv(image)), 1e-6, 'output')


def test_gradients_reach_the_input():
    conv = frozen(nn.Conv2d(8, 8, 1))
    x = torch.randn(1, 8, 5, 5, requires_grad=True)
    conv_add(conv, ConvAct(conv, GELU())(x), x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_other_precisions_and_no_images():
    conv = frozen(nn.Conv2d(8, 8, 1).double())
    x = torch.randn(1, 8, 5, 5, dtype=torch.double)
    assert ConvAct(conv, GELU())(x).dtype == torch.double
    conv = frozen(nn.Conv2d(8, 8, 1))
    assert ConvAct(conv, GELU())(torch.zeros(0, 8, 5, 5)).shape[0] == 0


def test_gradients_reach_what_is_added():
    conv, x = frozen(nn.Conv2d(8, 8, 1)), torch.randn(1, 8, 5, 5)
    other = torch.randn(1, 8, 5, 5, requires_grad=True)
    conv_add(conv, x, other).sum().backward()
    assert torch.equal(other.grad, torch.ones_like(other))


def test_forward_mode():
    layers = ConvAct(frozen(nn.Conv2d(8, 8, 1)), GELU())
    x, direction = torch.randn(2, 1, 8, 5, 5)
    with torch.no_grad():
        _, tangent = torch.func.jvp(layers, (x,), (direction,))
        assert tangent.abs().max() > 0
        with fwAD.dual_level():
            out = layers(fwAD.make_dual(x, direction))
            assert_close(fwAD.unpack_dual(out).tangent, tangent, 1e-5, 'dual')


@pytest.mark.parametrize(
    'options', [dict(padding=1, padding_mode='circular'), dict(padding='same')]
)
def test_other_padding(options, image):
    conv = frozen(nn.Conv2d(8, 8, 3, **options))
    expected = nn.functional.gelu(conv(image))
    assert_close(ConvAct(conv, GELU())(image), expected, 1e-6, 'output')


def test_machines_without_bf16(monkeypatch, image):
    ops = torch.ops.mkldnn
    monkeypatch.setattr(ops, '_is_mkldnn_bf16_supported', lambda: False)
    layers = ConvAct(frozen(nn.Conv2d(8, 8, 1)), GELU()).bfloat16()
    with Operators() as ran:
        layers(image.bfloat16())
    assert ran.fused == 0


def test_autocast_leaves_double_as_it_is():
    conv = frozen(nn.Conv2d(8, 8, 1).double())
    with torch.autocast('cpu', torch.bfloat16):
        out = ConvAct(conv, GELU())(torch.randn(1, 8, 5, 5).double())
    assert out.dtype == torch.double


def test_symbolic_tracing():
    block = micro_model(32).eval().network[0][0]
    x = torch.randn(1, block.mlp.fc1[0].in_channels, 8, 8)
    for module in (block.mlp, block.layer_scale_1):
        traced = torch.fx.symbolic_trace(module)
        assert_close(traced(x), module(x), 1e-5, type(module).__name__)

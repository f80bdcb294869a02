"""The depthwise convolution equals F.conv2d, gradients included."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune

from mmtransxnet.engine.runner.replay import _Watch
from mmtransxnet.kernels import depthwise
from mmtransxnet.kernels.depthwise import (
    DepthwiseConv2d,
    depthwise_conv2d,
    multi_scale,
)
from mmtransxnet.kernels.settings import BY_DEVICE, UNMEASURED, settings_for
from tests.support.compare import assert_all_close, relative_error
from tests.support.models import make_input, micro_model


def inputs(shape, kernel_size, dtype=torch.float64):
    channels = shape[1]
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    weight = torch.randn(channels, 1, kernel_size, kernel_size, dtype=dtype)
    bias = torch.randn(channels, dtype=dtype)
    return x, weight.requires_grad_(), bias.requires_grad_()


def plain(x, weight, bias):
    padding = weight.size(-1) // 2
    return F.conv2d(x, weight, bias, padding=padding, groups=x.size(1))


def assert_same_with_gradients(ours, expected, args):
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(ours, args, upstream),
        torch.autograd.grad(expected, args, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


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
    assert_same_with_gradients(ours, expected, args)


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


# ----------------------------------------------- several sizes, and the input
def convs(sizes, channels=2, dtype=torch.float64):
    return nn.ModuleList(
        DepthwiseConv2d(channels, k, residual=True) for k in sizes
    ).to(dtype)


def ours_added(x, convs):
    out = multi_scale(SimpleNamespace(proj=convs), x)
    if out is not NotImplemented:
        return out
    parts = x.split([conv.in_channels for conv in convs], dim=1)
    pairs = zip(convs, parts, strict=True)
    return torch.cat([conv(part) for conv, part in pairs], dim=1)


def added(x, convs):
    """The formula: the input and the convolution of each part of it."""
    parts = x.split([conv.in_channels for conv in convs], dim=1)
    pairs = zip(parts, convs, strict=True)
    outs = [plain(part, conv.weight, conv.bias) for part, conv in pairs]
    return x + torch.cat(outs, dim=1)


@pytest.mark.parametrize('sizes', [[7], [3], [1, 3, 5, 7], [5, 1]], ids=str)
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
@pytest.mark.parametrize('side', [9, 1])
def test_added_convolutions(sizes, layout, side):
    module = convs(sizes)
    x = torch.randn(3, 2 * len(sizes), side, 6, dtype=torch.float64)
    x = x.to(memory_format=layout).requires_grad_()
    args = [x, *module.parameters()]
    ours, expected = ours_added(x, module), added(x, module)
    with torch.no_grad():
        torch.testing.assert_close(ours_added(x, module), expected)
    assert_same_with_gradients(ours, expected, args)


@pytest.mark.parametrize('trained', [None, 0, 1, 2, 3])
def test_added_convolutions_of_which_some_are_trained(trained):
    module = convs([1, 3, 5, 7]).requires_grad_(False)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    if trained is None:
        needed = [x.requires_grad_()]
    else:
        needed = list(module[trained].requires_grad_().parameters())
    ours, expected = ours_added(x, module), added(x, module)
    mine = torch.autograd.grad(ours.sum(), needed)
    theirs = torch.autograd.grad(expected.sum(), needed)
    torch.testing.assert_close(mine, theirs)


def test_added_convolutions_in_low_precision_keep_small_kernels():
    """1 + 1e-3 is 1 in bfloat16; 256 times 1e-3 is not 0."""
    module = convs([1], dtype=torch.float32)
    nn.init.constant_(module[0].weight, 1e-3)
    nn.init.zeros_(module[0].bias)
    x = torch.tensor([256.0, -256.0]).view(1, 2, 1, 1)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        out = ours_added(x, module)
    assert ((out - x) / x).max() > 5e-4


def test_added_convolutions_are_one(monkeypatch):
    """Otherwise the tests above compare the formula with itself."""
    calls = []
    conv2d = F.conv2d
    monkeypatch.setattr(
        F, 'conv2d', lambda *args, **kw: calls.append(1) or conv2d(*args, **kw)
    )
    image = torch.randn(1, 8, 5, 5)
    ours_added(image, convs([1, 3, 5, 7], dtype=torch.float32))
    assert len(calls) == 1


# ------------------------------------------------- modules are called as such
@pytest.mark.parametrize('sizes', [[7], [1, 3, 5, 7]], ids=str)
def test_residual_module_equals_the_formula(sizes):
    module = convs(sizes)
    x = torch.randn(2, 2 * len(sizes), 6, 5, dtype=torch.float64)
    parts = x.split(2, dim=1)
    outs = [conv(part) for conv, part in zip(module, parts, strict=True)]
    torch.testing.assert_close(torch.cat(outs, dim=1), added(x, module))


def depthwise_names(model):
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, DepthwiseConv2d)
    }


@pytest.mark.parametrize('how', ['forward', 'pre', 'global'])
@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
def test_every_module_is_called(how, train):
    """All that listen hear of every module, those of containers too."""
    model = micro_model().train(train)
    names = {module: name for name, module in model.named_modules()}
    heard = set()
    if how == 'global':
        handles = [
            register_module_forward_hook(
                lambda module, *_: heard.add(names.get(module))
            )
        ]
    else:
        kind = 'register_forward_hook'
        kind = kind if how == 'forward' else 'register_forward_pre_hook'
        handles = [
            getattr(module, kind)(lambda module, *_: heard.add(names[module]))
            for module in names
        ]
    model(make_input(0, (2, 3, 64, 64)))
    for handle in handles:
        handle.remove()
    # Lists of modules compute nothing themselves.
    lists = {name for m, name in names.items() if type(m) is nn.ModuleList}
    lists |= {n for m, n in names.items() if isinstance(m, nn.ParameterList)}
    assert set(names.values()) - heard == lists
    assert depthwise_names(model) <= heard


@pytest.mark.parametrize('hooked', [0, 1, 3])
def test_values_with_hooks_are_the_same(hooked):
    model = micro_model().eval()
    image = make_input(0, (2, 3, 64, 64))
    with torch.no_grad():
        expected = model(image)
    conv = model.network[0][0].mlp.dwconv.proj[hooked]
    seen = []
    conv.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    with torch.no_grad():
        assert_all_close(model(image), expected, 1e-5, 'hooked')
    ((args, out),) = seen
    torch.testing.assert_close(
        out, args[0] + plain(args[0], conv.weight, conv.bias)
    )


@pytest.mark.parametrize('name', ['pos_embed', 'mlp.dwconv.proj.2'])
@pytest.mark.parametrize('change', ['prune', 'parametrize', 'replace'])
def test_changed_weights_are_seen(name, change):
    """In what is trained and what is not, as without the fast paths."""
    image = make_input(0, (2, 3, 64, 64))

    def outs(settings):
        model = micro_model().eval()
        block = model.network[0][0]
        conv = block.get_submodule(name)
        before = model(image)
        if change == 'prune':
            prune.ln_structured(conv, 'weight', 0.5, n=1, dim=0)
        elif change == 'parametrize':
            parametrize.register_parametrization(conv, 'weight', Halved())
        else:
            parent, _, child = name.rpartition('.')
            setattr(block.get_submodule(parent), child, Doubled(conv))
        with settings_for('cpu', settings):
            after = model(image)
        return before, after

    before, fast = outs(BY_DEVICE['cpu'])
    _, slow = outs(UNMEASURED)
    assert_all_close(fast, slow, 1e-5, change)
    assert relative_error(fast[0], before[0]) > 1e-3


@pytest.mark.parametrize('name', ['pos_embed', 'mlp.dwconv.proj.1'])
def test_a_replay_names_a_depthwise_convolution(name):
    """Its watch hears of the module that gave the first NaN."""
    model = micro_model().train()
    conv = model.network[0][0].get_submodule(name)
    with torch.no_grad():
        conv.weight[0, 0, 1, 1] = float('nan')
    watch = _Watch(model)
    model(make_input(0, (2, 3, 64, 64)))
    watch.remove()
    assert watch.culprit.name == f'network.0.0.{name}'
    assert not watch.culprit.bad_inputs


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class Doubled(nn.Module):
    """What adapters do: another module in the place of a convolution."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return 2 * self.conv(x)

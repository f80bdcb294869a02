"""``conv(norm(act(x)))`` with only x kept equals the three modules."""

import copy

import pytest
import torch
from mmengine.model.utils import _BatchNormXd
from torch import nn
from torch.nn.utils import parametrizations, prune

from mmtransxnet.kernels.act_norm_conv import act_norm_conv, computes
from mmtransxnet.kernels.batch_norm import no_statistics_update
from mmtransxnet.kernels.channels_last import GELU
from mmtransxnet.kernels.settings import plain
from mmtransxnet.models.ms_ffn import MultiScaleDWConv
from tests.support.compare import assert_close

CONVS = {
    'pointwise': lambda: nn.Conv2d(12, 5, 1, bias=False),
    'pointwise with bias': lambda: nn.Conv2d(12, 5, 1),
    'depthwise': lambda: MultiScaleDWConv(12),
}


def parts(conv='pointwise', dtype=torch.float64, **norm):
    """Activation, norm and convolution with random values."""
    torch.manual_seed(0)
    modules = nn.ModuleList(
        [GELU(), nn.BatchNorm2d(12, **norm), CONVS[conv]()]
    ).to(dtype)
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.normal_()
    return modules.train()


def image(dtype=torch.float64, shape=(3, 12, 7, 10), mean=0.0):
    x = torch.randn(shape, dtype=dtype) + mean
    return x.to(memory_format=torch.channels_last).requires_grad_()


def gradients(out, x, modules):
    torch.manual_seed(1)
    loss = (out * torch.randn(out.shape, dtype=out.dtype)).sum()
    inputs = [x, *(p for p in modules.parameters() if p.requires_grad)]
    return torch.autograd.grad(loss, inputs)


def compare(modules, x, tolerance):
    formula = copy.deepcopy(modules)
    out = act_norm_conv(x, *modules)
    with plain():
        expected = nn.Sequential(*formula)(x)
        expected_grads = gradients(expected, x, formula)
    assert_close(out, expected, tolerance, 'output')
    grads = gradients(out, x, modules)
    for mine, wanted in zip(grads, expected_grads, strict=True):
        assert_close(mine, wanted, tolerance, tuple(wanted.shape))
    for mine, wanted in zip(modules.buffers(), formula.buffers(), strict=True):
        assert_close(mine, wanted, tolerance, 'statistics')


@pytest.mark.parametrize('conv', CONVS)
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-4)]
)
def test_equals_the_modules(conv, dtype, tolerance):
    compare(parts(conv, dtype), image(dtype), tolerance)


@pytest.mark.parametrize('conv', ['pointwise', 'depthwise'])
def test_values_far_from_zero_keep_their_precision(conv):
    """The mean is subtracted before anything is summed."""
    x = image(torch.float32, mean=50.0)
    compare(parts(conv, torch.float32), x, 1e-3)


@pytest.mark.parametrize('momentum', [None, 0.0, 0.3])
def test_running_statistics(momentum):
    modules = parts(momentum=momentum)
    for _ in range(3):
        compare(modules, image(mean=1.0), 1e-12)


def test_a_norm_that_does_not_count():
    modules = parts()
    modules[1].num_batches_tracked = None
    compare(modules, image(), 1e-12)


@pytest.mark.parametrize('name', ['0', '1', '2'])
def test_frozen_parts(name):
    modules = parts()
    modules.get_submodule(name).requires_grad_(False)
    compare(modules, image(), 1e-12)


def test_a_weight_of_zero_has_a_gradient():
    modules = parts('depthwise')
    with torch.no_grad():
        modules[1].weight[3:5] = 0
    compare(modules, image(), 1e-12)


@pytest.mark.parametrize('conv', CONVS)
def test_gradcheck(conv):
    modules = parts(conv)
    x = image(shape=(2, 12, 3, 4))
    with no_statistics_update(modules):
        assert torch.autograd.gradcheck(
            lambda y, *_: act_norm_conv(y, *modules),
            (x, *modules.parameters()),
        )


def test_statistics_are_not_updated_where_that_is_switched_off():
    modules = parts()
    before = copy.deepcopy(list(modules.buffers()))
    with no_statistics_update(modules):
        act_norm_conv(image(), *modules)
    for mine, wanted in zip(modules.buffers(), before, strict=True):
        assert torch.equal(mine, wanted)


def test_only_the_input_is_kept():
    x, modules = image(), parts('depthwise')
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        act_norm_conv(x, *modules)
    large = [n for n in kept.values() if n >= x.untyped_storage().nbytes()]
    assert len(large) == 1


class Norm(nn.BatchNorm2d):
    pass


class Tripled(MultiScaleDWConv):
    def forward(self, x):
        return 3 * super().forward(x)


class Wrapped(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x)


def convolved(conv):
    return nn.ModuleList([GELU(), nn.BatchNorm2d(12), conv])


def normalised(modules, norm):
    modules[1] = norm
    return modules


def changed(modules, change):
    change(modules)
    return modules


@pytest.mark.parametrize(
    'modules',
    [
        parts().eval(),
        parts(affine=False),
        parts(track_running_stats=False),
        normalised(parts(), Norm(12)),
        normalised(parts(), nn.SyncBatchNorm(12)),
        changed(parts(), lambda m: m[0].register_forward_hook(print)),
        changed(
            parts(), lambda m: prune.random_unstructured(m[2], 'weight', 1)
        ),
        changed(parts(), lambda m: parametrizations.weight_norm(m[2])),
        changed(
            parts('depthwise'),
            lambda m: m[2].proj[1].register_forward_pre_hook(print),
        ),
        nn.ModuleList([nn.GELU(), nn.BatchNorm2d(12), nn.Conv2d(12, 5, 1)]),
        convolved(nn.Conv2d(12, 5, 3)),
        convolved(nn.Conv2d(12, 5, 1, padding=1)),
        convolved(Wrapped(nn.Conv2d(12, 5, 1))),
        convolved(Tripled(12)),
    ],
    ids=lambda m: str(m)[:60],
)
def test_other_modules_are_called(modules):
    assert not computes(image(), *modules)


def test_where_it_applies():
    modules = parts()
    assert computes(image(), *modules)
    assert computes(image(), *normalised(parts(), _BatchNormXd(12)))
    assert not computes(image().contiguous(), *modules)
    assert not computes(image(torch.bfloat16), *modules)
    with torch.autocast('cpu'):
        assert not computes(image(torch.float32), *modules)
    with plain():
        assert not computes(image(), *modules)

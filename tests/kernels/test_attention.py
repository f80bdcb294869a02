"""Attention in blocks equals attention with the whole resized table."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmtransxnet.kernels import attention as kernel
from mmtransxnet.kernels import attention_blocks, bicubic, settings
from mmtransxnet.kernels.attention import attention, resize_for_device
from mmtransxnet.kernels.settings import (
    BY_DEVICE,
    UNMEASURED,
    settings_for,
)
from tests.support.compare import assert_close
from tests.support.models import make_input, micro_model

# Nq0, Nk0 -> Nq, Nk: rows or columns more, fewer, equal; few rows at all.
SIZES = [
    (49, 4, 100, 9),
    (49, 9, 50, 9),
    (784, 49, 3200, 40),
    (3136, 4, 20011, 3),
    (196, 9, 65, 20),
    (49, 4, 49, 6),
    (64, 9, 64, 9),
    (5, 3, 700, 3),
    (1, 1, 9, 4),
    (3, 2, 4, 2),
]


# Where nothing was measured, but with tables too large to be kept.
UNMEASURED_IN_BLOCKS = replace(UNMEASURED, whole_table=0)


@pytest.fixture(
    params=[
        replace(BY_DEVICE['cpu'], block_scores=64),
        BY_DEVICE['cpu'],
        UNMEASURED,
        replace(UNMEASURED_IN_BLOCKS, block_scores=64),
    ],
    ids=['many blocks', 'few blocks', 'plain', 'plain in blocks'],
)
def blocks(request, monkeypatch):
    """Small maps are one block otherwise, and nothing would be tested."""
    monkeypatch.setattr(attention_blocks, '_MIN_ROWS', 7)
    with settings_for('cpu', request.param):
        yield


def inputs(num_q, num_k, table, dtype=torch.float64, batch=2, heads=2, dim=4):
    """Leaves q, k, v and the table."""
    shapes = [(batch, heads, n, dim) for n in (num_q, num_k, num_k)]
    shapes.append((1, heads, *table))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


def ours(q, k, v, table):
    resized = resize_for_device(table, q.size(2), k.size(2))
    return attention(q, k, v, resized)


def plain(q, k, v, table):
    """As published: resize the whole matrix, materialise everything."""
    size = q.size(2), k.size(2)
    if table.shape[-2:] != size:
        table = F.interpolate(table, size, mode='bicubic')
    return (q @ k.mT * q.size(-1) ** -0.5 + table).softmax(dim=-1) @ v


@pytest.mark.usefixtures('blocks')
@pytest.mark.parametrize('sizes', SIZES, ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_equals_plain(sizes, dtype):
    *table, num_q, num_k = sizes
    args = inputs(num_q, num_k, table, dtype)
    expected, out = plain(*args), ours(*args)
    tol = 1e-12 if dtype == torch.float64 else 2e-6
    assert_close(out, expected, tol, 'training')
    with torch.no_grad():
        assert_close(ours(*args), expected, tol, 'inference')
    grad = torch.randn_like(expected)
    # In float32 F.interpolate's own gradient is the less exact of the two.
    tol = 1e-12 if dtype == torch.float64 else 1e-4
    for name, mine, theirs in zip(
        ('q', 'k', 'v', 'table'),
        torch.autograd.grad(out, args, grad),
        torch.autograd.grad(expected, args, grad),
        strict=True,
    ):
        # Adding one value to all scores of a query changes nothing.
        assert_close(mine, theirs, tol, name, floor=0.1)


@pytest.mark.usefixtures('blocks')
@pytest.mark.parametrize('table', [(20, 4), (9, 2)], ids=['same', 'resized'])
def test_gradcheck(table):
    assert torch.autograd.gradcheck(ours, inputs(20, 4, table, batch=1))


@pytest.mark.usefixtures('blocks')
@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (3,), (0, 3), (1, 2)])
def test_only_some_inputs_need_gradients(needed):
    args = [a.detach() for a in inputs(50, 6, (20, 4))]
    leaves = [args[i].requires_grad_() for i in needed]
    mine = torch.autograd.grad(ours(*args).square().sum(), leaves)
    theirs = torch.autograd.grad(plain(*args).square().sum(), leaves)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('parameter', [torch.float32, None], ids=str)
def test_low_precision(dtype, parameter):
    """With a float32 table, as under autocast, and in a cast model."""
    args = inputs(700, 20, (49, 9), torch.float32)
    low = [a.detach().to(dtype).requires_grad_() for a in args]
    if parameter is not None:
        low[3] = args[3].detach().clone().requires_grad_()
    out, expected = ours(*low), plain(*args)
    assert out.dtype == dtype
    assert_close(out.float(), expected, 0.03, 'output')
    grad = torch.randn_like(expected)
    grads = torch.autograd.grad(out, low, grad.to(dtype))
    for leaf, mine, theirs in zip(
        low, grads, torch.autograd.grad(expected, args, grad), strict=True
    ):
        assert mine.dtype == leaf.dtype
        assert_close(mine.float(), theirs, 0.03, 'gradient')


@pytest.mark.parametrize('rows', [20, 9], ids=['same', 'resized'])
def test_no_images(rows):
    args = inputs(20, 5, (rows, 5), torch.float32, batch=0)
    out = attention(*args)
    out.sum().backward()
    assert out.shape == args[0].shape
    assert not args[3].grad.any()


def test_large_scores_stay_finite_in_half_precision():
    q, k, v, table = (t.detach() for t in inputs(70, 9, (20, 4)))
    args = [t.half().requires_grad_() for t in (300 * q, 300 * k, v, table)]
    out = ours(*args)
    grads = torch.autograd.grad(out.float().sum(), args)
    assert all(t.isfinite().all() for t in (out, *grads))


def test_operator_contract():
    """PyTorch's own checks: fake tensors, strides, autograd, compilation."""
    args = inputs(40, 5, (9, 5), torch.float32)
    args[3] = args[3].detach()[0].requires_grad_()
    torch.library.opcheck(torch.ops.mmtransxnet.position_attention, args)


def test_strides_of_gradients_are_as_the_compiler_expects():
    """Also of inputs whose values lie in another order (channels-last)."""
    *args, table = (
        t.detach().to(memory_format=torch.channels_last)
        for t in inputs(9, 5, (9, 5), torch.float32)
    )
    args = (torch.ones_like(args[0]), *args, table[0])
    assert not args[-1].is_contiguous()
    operator = torch.ops.mmtransxnet.position_attention_backward
    torch.library.opcheck(operator, args)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def test_nothing_as_large_as_the_resized_table_is_made():
    args = inputs(12544, 196, (784, 49), torch.float32, batch=1, heads=1)
    with _Largest() as whole:
        plain(*args).sum().backward()
    # Calls the operators without their wrapper, which hides what is inside.
    q, k, v, table = args
    table = resize_for_device(table, 12544, 196)[0]
    small = replace(BY_DEVICE['cpu'], block_scores=2**15)
    with torch.no_grad(), settings_for('cpu', small), _Largest() as blocks:
        out = kernel._attention._init_fn(q, k, v, table)
        kernel._attention_backward._init_fn(out, q, k, v, table)
    assert whole.numel >= 12544 * 196
    assert 0 < blocks.numel <= 12544 * 196 / 10


@pytest.fixture
def calls(monkeypatch):
    """How often attention worked on one block."""
    found = []
    bias = attention_blocks.rows_of_bias
    monkeypatch.setattr(
        attention_blocks,
        'rows_of_bias',
        lambda *args: found.append(1) or bias(*args),
    )
    return found


def test_small_maps_in_inference_use_one_fused_call(calls):
    args = inputs(49, 4, (49, 4), torch.float32)
    with torch.no_grad():
        ours(*args)
    assert not calls
    ours(*args)
    assert calls


@pytest.fixture
def cache(monkeypatch):
    """An empty cache, and how often taps were made."""
    made = []
    make = bicubic.make_taps
    taps = bicubic.TapsCache()
    monkeypatch.setattr(attention_blocks, 'taps_cache', taps)
    monkeypatch.setattr(
        bicubic, 'make_taps', lambda *args: made.append(args) or make(*args)
    )
    return made


def test_taps_are_made_once_per_size(cache):
    model = micro_model(32).eval()
    for _ in range(2):
        with torch.no_grad():
            model(make_input(0, (1, 3, 96, 64)))
    assert 1 <= len(cache) <= 2 * 4  # keys and queries of four stages


def test_taps_that_are_kept_have_a_bound_in_bytes(cache, monkeypatch):
    like = torch.zeros(())
    one = attention_blocks.taps_cache.get(9, 100, like)
    size = attention_blocks.taps_cache.nbytes()
    assert size == 100 * 4 * (4 + 8)
    monkeypatch.setattr(bicubic, '_CACHE_BYTES', 2 * size)
    for num_q in (99, 98, 97, 10_000):
        taps = attention_blocks.taps_cache.get(9, num_q, like)
        assert taps.weights.shape == (num_q, 4)
        assert attention_blocks.taps_cache.nbytes() <= 2 * size
    assert torch.equal(
        attention_blocks.taps_cache.get(9, 100, like).rows, one.rows
    )
    assert len(cache) == 6


def test_taps_from_inference_mode_serve_training(cache):
    args = inputs(50, 6, (20, 4))
    with torch.inference_mode():
        ours(*[a.detach() for a in args])
    ours(*args).sum().backward()
    assert len(cache) == 2  # keys and queries
    assert args[3].grad.isfinite().all()


# ------------------------------------------- what no machine here can measure
IMAGES = {'224': (224, 224), '512': (512, 512), '800': (800, 1216)}
IMAGES['1600'] = (1600, 2432)
# Heads, channels of a head, stride and reduction of the stages of T.
STAGES = [(1, 24, 4, 8), (2, 24, 8, 4), (4, 28, 16, 2), (8, 28, 32, 1)]


class _Cost(_Largest):
    """FLOPs, the largest tensor, and what looks at values or is exact."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        assert 'local_scalar' not in func.name(), 'waits for the device'
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                assert value.dtype != torch.float64, func.name()
        return out


COSTS = [(image, UNMEASURED) for image in IMAGES]
COSTS += [(image, UNMEASURED_IN_BLOCKS) for image in IMAGES]
# Hundreds of blocks more would all be the same.
COSTS += [(image, BY_DEVICE['cpu']) for image in ('224', '512')]


@pytest.mark.parametrize(('image', 'settings'), COSTS)
@pytest.mark.parametrize('stage', range(4))
def test_operator_costs_what_the_formula_costs(image, stage, settings):
    """Inside the operator, without a device: meta tensors have no values."""
    heads, dim, stride, reduction = STAGES[stage]
    height, width = IMAGES[image]
    num_q = -(-height // stride) * -(-width // stride)
    num_k = -(-height // stride // reduction) * -(
        -width // stride // reduction
    )
    num_q0, num_k0 = (224 // stride) ** 2, 49
    batch = 2
    with torch.device('meta'):
        args = [
            torch.empty(batch, heads, n, dim, requires_grad=True)
            for n in (num_q, num_k, num_k)
        ]
        table = torch.empty(1, heads, num_q0, num_k0, requires_grad=True)
    scores = batch * heads * num_q * num_k
    with settings_for('meta', settings), _Cost() as cost:
        small = resize_for_device(table, num_q, num_k)
        with FlopCounterMode(display=False) as forward:
            if small.size(2) == num_q and settings.trains_with_mask:
                out = attention(*args, small)
                out.sum().backward()
            else:
                out = kernel._attention._init_fn(*args, small[0])
                kernel._attention_backward._init_fn(out, *args, small[0])
    # The scores are computed again; in blocks, the rows of the table are part
    # of the products.
    most = 1.2 if small.size(2) == num_q else 1.6
    assert 0 < forward.get_total_flops() <= most * 12 * scores * dim
    if small.size(2) != num_q:
        # Fused attention has no scores; its formula has those of all samples.
        block = batch * max(
            settings.block_scores * torch.get_num_threads(), 64 * num_k
        )
        largest = max(
            block * 1.01,
            *(t.numel() for t in args),
            small.numel(),
            64 * batch * heads * num_k,
        )
        assert cost.numel <= largest


def test_large_tables_are_not_made_where_nothing_was_measured():
    with torch.device('meta'):
        table = torch.empty(1, 1, 3136, 49)
    whole = resize_for_device(table, 60800, 950)
    assert whole.shape[-2:] == (60800, 950)
    assert whole.nbytes < UNMEASURED.whole_table
    parts = resize_for_device(table, 243200, 3800)
    assert parts.shape[-2:] == (3136, 3800)


def test_flops_are_counted():
    args = inputs(50, 6, (20, 4))
    with FlopCounterMode(display=False) as counter:
        attention(*args[:3], args[3][..., :1].expand(-1, -1, -1, 6))
    forward = 2 * 2 * 2 * 2 * 50 * 6 * 4
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        attention(
            *args[:3], args[3][..., :1].expand(-1, -1, -1, 6)
        ).sum().backward()
    assert counter.get_total_flops() == 3.5 * forward


def test_a_used_model_can_be_copied():
    model = micro_model(32)
    model(make_input(0, (1, 3, 64, 64)))[0].sum().backward()
    copy.deepcopy(model)


def test_bias_under_autocast_is_as_exact_as_without():
    """The operator computes it in float32; only the mask is rounded."""
    q, k, v, table = (t.float().detach() for t in inputs(50, 6, (20, 6)))
    table = 100 + table  # what low precision would round to whole numbers
    low = [t.bfloat16() for t in (q, k, v)]
    found = []
    bias = attention_blocks.rows_of_bias

    def spy(*args):
        found.append(bias(*args))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_blocks, 'rows_of_bias', spy)
        with torch.autocast('cpu', torch.bfloat16):
            attention(*low, table.requires_grad_())
    exact = F.interpolate(table, (50, 6), mode='bicubic')[0]
    (made,) = found
    assert made.dtype == torch.float32
    assert_close(made, exact, 1e-6, 'bias')


@pytest.mark.parametrize('autocast', [False, True], ids=['cast', 'autocast'])
@pytest.mark.parametrize('rows', [20, 50], ids=['resized', 'whole'])
@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])
def test_a_large_bias_is_added_in_full_precision(rows, grad, autocast):
    """On CPUs; rounding the output is all that costs."""
    q, k, v, table = (t.float().detach() for t in inputs(50, 6, (rows, 6)))
    table = 20 + table
    low = [t.bfloat16() for t in (q, k, v)]
    exact = plain(*(t.float() for t in low), table)
    given = [q, k, v] if autocast else low
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        out = attention(*given, table.requires_grad_(grad))
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), exact.bfloat16().float(), 0.01, 'output')


def test_second_derivative_is_refused_with_a_remedy():
    args = inputs(50, 6, (20, 6))
    (first,) = torch.autograd.grad(
        ours(*args).square().sum(), args[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match='no second derivative'):
        first.sum().backward()


def test_the_remedy_has_a_second_derivative():
    args = inputs(9, 5, (9, 5), batch=1)
    math = torch.nn.attention.SDPBackend.MATH
    with settings.plain(), torch.nn.attention.sdpa_kernel(math):
        assert torch.autograd.gradgradcheck(ours, args)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_a_traced_network_contains_no_operator_of_ours():
    model = micro_model(32).eval()
    image = make_input(0, (1, 3, 64, 64))
    traced = torch.jit.trace(model, image, check_trace=False)
    assert 'mmtransxnet::' not in str(traced.inlined_graph)
    with torch.no_grad():
        pairs = zip(traced(image), model(image), strict=True)
        for mine, expected in pairs:
            assert_close(mine, expected, 1e-5, 'traced')

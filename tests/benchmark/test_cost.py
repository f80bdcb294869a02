"""tools/benchmark/cost.py: what it counts, and what the network needs."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from mmtransxnet.benchmark.cost.check import compare
from mmtransxnet.benchmark.cost.counter import CostCounter
from mmtransxnet.benchmark.cost.fit import available, largest_batch
from mmtransxnet.benchmark.cost.gpus import (
    GPUS,
    HOST_SECONDS,
    estimated_seconds,
)
from mmtransxnet.benchmark.cost.recipe import (
    count_recipe,
    training_dtype,
    training_size,
)
from mmtransxnet.benchmark.cost.step import count, count_case, remove_data
from mmtransxnet.benchmark.speed.cases import Case, Shape
from mmtransxnet.kernels import settings
from tests.support.models import micro_model
from tests.support.suite_configs import CONFIGS, load, micro_config


def counted(function, *tensors):
    """Cost of a function of tensors without data."""
    with CostCounter(*tensors) as counter:
        function(*tensors)
    return counter.cost


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fake():
    with FakeTensorMode():
        yield


@cache
def cost_of(case, shape, mode):
    return count_case(Case.parse(case), Shape.parse(shape), mode)


# ------------------------------------------------------------ one operator
@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize(
    ('function', 'shapes', 'flops', 'values', 'kernels'),
    [
        (torch.add, [(4, 8), (4, 8)], 0, 96, 1),
        # An expanded value is read once.
        (lambda x: x.expand(4, 8) + 1, [(4, 1)], 0, 36, 1),
        (lambda x: x.mT[:2].view(2, 3), [(3, 4)], 0, 0, 0),
        (lambda x: x.new_empty(7), [(3, 4)], 0, 0, 0),
        (lambda x: x.add_(1), [(5,)], 0, 10, 1),
        (lambda x, y: x.copy_(y), [(5,), (5,)], 0, 10, 1),
        (torch.mm, [(2, 3), (3, 5)], 60, 31, 1),
        (F.conv2d, [(1, 2, 4, 4), (3, 2, 1, 1)], 192, 32 + 6 + 48, 1),
        (F.conv2d, [(1, 2, 1, 1), (3, 2, 1, 1), (3,)], 12, 20, 2),
    ],
    ids=[
        'add', 'expand', 'views', 'empty', 'in place', 'copy', 'product',
        'convolution', 'bias',
    ],
)  # fmt: skip
def test_operator(function, shapes, flops, values, kernels):
    cost = counted(function, *map(torch.empty, shapes))
    assert (cost.flops, cost.nbytes, cost.kernels) == (
        flops, 4 * values, kernels
    )  # fmt: skip


@pytest.mark.usefixtures('fake')
def test_gradients_of_a_depthwise_convolution_need_its_flops_twice():
    x, weight = torch.empty(2, 8, 6, 6), torch.empty(8, 1, 3, 3)

    def step(x, weight):
        F.conv2d(x, weight, padding=1, groups=8).sum().backward()

    cost = counted(step, x.requires_grad_(), torch.nn.Parameter(weight))
    assert cost.flops == 3 * 2 * 2 * 8 * 36 * 9
    assert not any(op.dense for op in cost.operators if op.flops)


@pytest.mark.usefixtures('fake')
def test_memory_is_that_of_living_tensors():
    x = torch.empty(1024, 1024)  # 4 MiB

    def step(x):
        y = x + 1
        y = y.view(-1) + 1  # two at the same time
        del y
        return x.exp().sum()

    cost = counted(step, x)
    assert cost.held == 4 * 2**20
    assert cost.peak == 12 * 2**20


@pytest.mark.usefixtures('fake')
def test_host_reads_are_counted():
    def step(x):
        if x.sum() > 0:
            float(x[0])

    assert counted(step, torch.empty(4)).syncs == 2
    assert counted(lambda x: x.sum(), torch.empty(4)).syncs == 0


# --------------------------------------------------------------- estimates
def test_time_is_bound_by_compute_memory_or_the_host():
    gpu = GPUS['a100-40g']
    cost = cost_of('convnext_tiny', '8x224x224', 'inference')
    seconds = estimated_seconds(cost, gpu, False, False)
    assert seconds > cost.flops / (gpu.fp32 * 1e12)
    assert seconds > cost.nbytes / (gpu.bandwidth * 1e9)
    assert seconds >= cost.kernels * HOST_SECONDS
    assert estimated_seconds(cost, gpu, True, True) < seconds


def test_largest_batch_is_the_last_that_fits():
    gpu, case, mode = GPUS['t4'], 'convnext_tiny', 'training'
    batch = largest_batch(lambda n: cost_of(case, f'{n}x224x224', mode), gpu)
    peaks = [
        cost_of(case, f'{n}x224x224', mode).peak for n in (batch, batch + 1)
    ]
    assert peaks[0] <= available(gpu) < peaks[1]


# ------------------------------------------------- as measured on this CPU
@pytest.mark.parametrize(
    ('shape', 'mode'),
    [
        ('2x224x224', 'inference'),
        ('2x224x224', 'training'),
        ('1x256x320', 'training'),
    ],
)
def test_counts_what_a_cpu_does(shape, mode):
    found = compare(Case.parse('transxnet-t'), Shape.parse(shape), mode)
    for expected, measured in (found.flops, found.nbytes):
        assert expected == pytest.approx(measured, rel=0.15)


# ------------------------------------------- ours and the published formula
@pytest.mark.parametrize(
    ('shape', 'precision'),
    [('4x224x224', ''), ('1x416x608', ''), ('1x416x608', '+bf16')],
)
@pytest.mark.parametrize('mode', ['inference', 'training'])
def test_needs_no_more_than_the_published_formula(shape, precision, mode):
    ours = cost_of(f'transxnet-t{precision}', shape, mode)
    formula = cost_of(f'reference-t{precision}', shape, mode)
    # Two maps of the first stage: its input, held while its blocks run.
    image = Shape.parse(shape)
    held = 48 * image.batch * image.height * image.width // 16 * 4
    assert ours.peak <= formula.peak + 2 * held
    assert ours.nbytes <= formula.nbytes
    assert ours.kernels <= formula.kernels
    assert ours.syncs == formula.syncs == 0
    # Fused attention computes its scores once more for the gradients, and
    # pads heads of 28 values in low precision.
    assert ours.flops <= (1.1 if mode == 'training' else 1.02) * formula.flops


# ----------------------------------------------------- for graphs of a GPU
def step_of(model, shape, mode):
    model.train(mode == 'training')
    with FakeTensorMode():
        remove_data(model)

        def step(image):
            with torch.set_grad_enabled(mode == 'training'):
                loss = sum(out.square().mean() for out in model(image))
            if mode == 'training':
                loss.backward()

        return count(step, model, torch.empty(shape))


@pytest.mark.parametrize('mode', ['inference', 'training'])
@pytest.mark.parametrize('limit', [settings.UNMEASURED.whole_table, 0])
def test_the_host_reads_nothing(limit, mode, monkeypatch):
    changed = settings.Settings(whole_table=limit)
    monkeypatch.setattr(
        'mmtransxnet.benchmark.cost.as_on_gpu.UNMEASURED', changed
    )
    model = micro_model(with_cp=True, drop_path_rate=0.1)
    cost = step_of(model, (2, 3, 96, 64), mode)
    assert cost.kernels > 100
    assert cost.syncs == 0


# ----------------------------------------------------------------- recipes
def test_every_config_has_a_size():
    sizes = {training_size(load(path)) for path in CONFIGS}
    assert sizes == {
        (64, 64), (128, 128), (224, 224), (384, 384), (512, 512), (800, 1344),
    }  # fmt: skip


@pytest.mark.parametrize(
    'name',
    [
        'classification/transxnet_t_digits',
        'segmentation/upernet_transxnet_t_digits',
        'detection/maskrcnn_transxnet_t_digits',
    ],
)
def test_recipe(name):
    config = micro_config(name)
    assert training_dtype(config) == torch.float32
    few = count_recipe(config, 2, torch.float32)
    more = count_recipe(config, 4, torch.float32)
    assert few.held < more.held  # the images
    assert few.peak < more.peak
    # The gradients' norm, which mmengine logs.
    assert few.syncs <= 1
    names = {op.name for op in few.operators}
    assert 'aten._fused_adamw_' in names

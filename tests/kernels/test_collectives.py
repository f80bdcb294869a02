"""Processes with images of different sizes call the same collectives.

torch has SyncBN on GPUs only. A stand-in, which reduces in its forward and
its backward pass as SyncBN does, takes its place in two processes on CPUs.
A process that calls one collective more than the other would wait for ever.
"""

import datetime
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmtransxnet import TransXNet
from mmtransxnet.kernels.settings import BY_DEVICE, UNMEASURED, settings_for
from tests.support.models import (
    fill_by_name,
    gradients,
    make_input,
    micro,
    probe_loss,
)

SECONDS = 60
"""How long a process waits for the other one."""

# Shapes of the images of the first and of the second process.
DIFFERENT = ((2, 3, 64, 64), (2, 3, 96, 64))
ONE_VALUE = ((2, 3, 32, 32), (1, 3, 32, 32))
# Where the table is resized on one process only: its design size is 64.
DESIGN_SIZE = ((2, 3, 64, 64), (2, 3, 64, 96))
# Around the size from which on CPUs recompute, nothing changed for the test.
LARGE = ((2, 3, 704, 864), (2, 3, 704, 928))

# Of the maps of hidden channels in the first stage, some are larger.
BETWEEN = replace(BY_DEVICE['cpu'], recompute_above=40_000)

CASES = {
    'default': (LARGE, None, dict(out_indices=(0,))),
    'auto': (DIFFERENT, BETWEEN, {}),
    'on': (DIFFERENT, None, dict(recompute='on')),
    'with_cp': (DIFFERENT, None, dict(with_cp=True)),
    'with_cp, auto': (DIFFERENT, BETWEEN, dict(with_cp=True)),
    'in place': (
        DIFFERENT,
        None,
        dict(with_cp=True, act_cfg=dict(type='ReLU')),
    ),
    'frozen': (DIFFERENT, BETWEEN, dict(frozen_stages=2)),
    'frozen, with_cp': (DIFFERENT, None, dict(frozen_stages=1, with_cp=True)),
    'one value': (ONE_VALUE, None, {}),
    'one value, with_cp': (ONE_VALUE, None, dict(with_cp=True)),
    'one value, on': (ONE_VALUE, None, dict(recompute='on')),
    'design size': (DESIGN_SIZE, None, {}),
    'as on a GPU': (DIFFERENT, UNMEASURED, dict(with_cp=True)),
    'compiled': (ONE_VALUE, None, dict(out_indices=(0,), with_cp=True)),
}


class Exchange(torch.autograd.Function):
    """Normalise with the statistics of all processes."""

    @staticmethod
    def forward(ctx, x, norm):
        ctx.norm = norm
        count = x.numel() // x.size(1)
        sums = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        shared = torch.cat([sums, sums.new_full((1, x.size(1)), count)])
        all_reduce(shared, f'{norm.name} forward')
        mean, square, ctx.count = shared[0], shared[1], shared[2, 0]
        mean = mean / ctx.count
        scale = (square / ctx.count - mean.square() + norm.eps).rsqrt()
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.num_batches_tracked += 1
        ctx.save_for_backward(x, mean, scale)
        return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)

    @staticmethod
    def backward(ctx, grad):
        x, mean, scale = ctx.saved_tensors
        normalised = (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)
        shared = torch.stack(
            [grad.sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))]
        )
        all_reduce(shared, f'{ctx.norm.name} backward')
        first, second = (shared / ctx.count).unsqueeze(-1).unsqueeze(-1)
        return (grad - first - normalised * second) * scale.view(
            -1, 1, 1
        ), None


class StandIn(nn.BatchNorm2d):
    """SyncBN on CPUs."""

    name = ''

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        out = Exchange.apply(x, self)
        return out * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


CALLED = []


def all_reduce(tensor, name):
    CALLED.append(name)
    dist.all_reduce(tensor)


def model_of(kwargs):
    model = fill_by_name(TransXNet(micro(), 64, **kwargs))
    for name, module in model.named_modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = StandIn
            module.name = name
    return model.train()


def recorded(state, bucket):
    """DDP's own exchange; which gradients a bucket has is the same always."""
    CALLED.append(f'bucket {bucket.index()}')
    buffer = bucket.buffer().div_(dist.get_world_size())
    work = dist.all_reduce(buffer, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def step(rank, name, **changes):
    """What a process calls in two steps, and its last gradients."""
    shapes, settings, kwargs = CASES[name]
    model = model_of({**kwargs, **changes})
    if name == 'compiled':
        torch._dynamo.reset()
        model.compile(backend='aot_eager')
    # Small buckets, so that there are many, among the norms' exchanges. The
    # compiler insists on large ones.
    size = 25 if name == 'compiled' else 0.01
    wrapped = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=size)
    wrapped.register_comm_hook(None, recorded)
    CALLED.clear()
    context = settings_for('cpu', settings) if settings else nullcontext()
    with context:
        for seed in range(2):
            wrapped.zero_grad()
            probe_loss(wrapped(make_input(seed, shapes[rank]))).backward()
    return list(CALLED), gradients(model), model.state_dict()


def process(rank, folder):
    """One of two processes, through all cases."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/meet',
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    for name in CASES:
        results = step(rank, name)
        # Nothing recomputed: what the values have to be.
        changes = dict(with_cp=False, recompute='off')
        plain = step(rank, name, **changes) if name != 'default' else results
        torch.save((results, plain), f'{folder}/{name}{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What both processes did, up to the first case that failed."""
    folder = tmp_path_factory.mktemp('collectives')
    context = mp.spawn(process, (str(folder),), nprocs=2, join=False)
    for _ in range(600):
        try:
            if context.join(timeout=1):
                break
        except mp.spawn.ProcessException as error:
            (folder / 'error').write_text(str(error))
            break
    else:
        for one in context.processes:
            one.kill()
        (folder / 'error').write_text('no end after ten minutes')
    return folder


@pytest.mark.parametrize('name', CASES)
def test_processes_call_the_same_collectives(folder, name):
    error = folder / 'error'
    told = error.read_text() if error.is_file() else ''
    assert (folder / f'{name}1.pth').is_file(), told
    (mine, plain), (theirs, _) = (
        torch.load(folder / f'{name}{rank}.pth') for rank in (0, 1)
    )
    called, grads, state = mine
    norms = len(
        [
            m
            for m in model_of(CASES[name][2]).modules()
            if isinstance(m, StandIn) and m.training
        ]
    )
    assert called == theirs[0]
    assert sum('forward' in one for one in called) >= 2 * norms
    assert any('bucket' in one for one in called)
    # Nothing is asked twice, and the values are those of the plain network.
    assert sorted(called) == sorted(plain[0])
    for key, value in grads.items():
        if value is None:
            continue
        torch.testing.assert_close(value, theirs[1][key])
        scale = plain[1][key].abs().max().clamp_min(1e-4)
        assert (value - plain[1][key]).abs().max() < 1e-3 * scale, key
    for key, value in state.items():
        if 'running' in key or 'tracked' in key:
            torch.testing.assert_close(value, plain[2][key], msg=key)

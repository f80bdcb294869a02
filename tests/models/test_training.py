"""One training step: gradients, drop path, recomputation, one image."""

import pytest
import torch
import torch.nn.functional as F

from mmtransxnet import TransXNet
from tests.support.compare import (
    assert_all_close,
    assert_close,
    assert_same_buffers,
    assert_same_gradients,
)
from tests.support.models import (
    buffers,
    gradients,
    make_input,
    micro,
    micro_model,
    probe_loss,
)

BATCH = (2, 3, 64, 64)


def _filled(**kwargs):
    return micro_model(224, **kwargs).train()


def _step(model, shape=BATCH, seed=8):
    """Outputs, gradients and buffers of one seeded training step."""
    torch.manual_seed(seed)
    outs = model(make_input(seed, shape))
    probe_loss(outs).backward()
    return outs, gradients(model), buffers(model)


# --------------------------------------------------------------- gradients
@pytest.mark.parametrize(
    'indices', [(0, 1, 2, 3), (1, 2, 3), (3,), (0, 1), (0,)], ids=str
)
def test_every_trained_parameter_gets_a_gradient(indices):
    """An unused parameter would stop a distributed run."""
    model = _filled(out_indices=indices)
    _, grads, _ = _step(model)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n in trained if grads[n] is None]
    assert not without
    broken = [n for n in trained if not grads[n].isfinite().all()]
    assert not broken
    # Stages up to the last output are trained, however few outputs.
    if indices[-1] == 3:
        assert trained == set(grads)


def test_start_weights_give_gradients_too():
    model = TransXNet(micro()).train()
    _, grads, _ = _step(model)
    without = [n for n, g in grads.items() if g is None]
    assert not without


def test_steps_reduce_the_loss():
    model = _filled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    image = make_input(9, BATCH)
    losses = []
    for _ in range(3):
        loss = probe_loss(model(image))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


# --------------------------------------------------------------- drop path
@pytest.mark.parametrize('layers', [[1, 1, 2, 1], [2, 1, 3, 2]])
def test_drop_path_grows_linearly_over_all_blocks(layers):
    rate = 0.4
    model = TransXNet(micro(layers=layers), drop_path_rate=rate)
    blocks = [b for stage in model.network[::2] for b in stage]
    assert len(blocks) == sum(layers)
    for k, block in enumerate(blocks):
        rates = [
            m.drop_prob for m in block.modules() if hasattr(m, 'drop_prob')
        ]
        expected = rate * k / (len(blocks) - 1)
        # A block that never drops may do without the module.
        assert rates or expected == 0, f'block {k}'
        for found in rates:
            assert found == pytest.approx(expected, abs=1e-6), f'block {k}'


def test_a_single_block_rate_needs_no_division_by_zero():
    with pytest.raises(ValueError, match='layers'):
        TransXNet(micro(layers=[1, 0, 0, 0]))


def test_drop_path_drops_both_branches_of_a_sample():
    """With a rate of almost one, only the position embedding is left."""
    model = _filled(drop_path_rate=0.999999)
    block = model.network[6][0]
    seen = {}

    def remember(module, args, out):
        seen['x'], seen['out'] = args[0], out

    block.register_forward_hook(remember)
    with torch.no_grad():
        model(make_input(10, BATCH))
        x, out = seen['x'], seen['out']
        expected = block.pos_embed(x)  # with its residual
        assert_close(out, expected, 1e-6, 'train')
        model.eval()(make_input(10, BATCH))
        x, out = seen['x'], seen['out']
        error = (out - block.pos_embed(x)).abs().max()
    assert error > 1e-2, 'evaluation drops nothing'


# ------------------------------------------------------------- with_cp
@pytest.mark.parametrize(
    ('shape', 'kwargs'),
    [
        (BATCH, {}),
        ((2, 3, 75, 50), dict(drop_path_rate=0.5, drop_rate=0.2)),
        ((1, 3, 64, 64), dict(drop_path_rate=0.5)),
        ((1, 3, 32, 32), {}),
        (BATCH, dict(frozen_stages=2)),
        (BATCH, dict(norm_eval=True)),
        (BATCH, dict(conv_norm_cfg=dict(type='SyncBN'))),
        (BATCH, dict(conv_norm_cfg=dict(type='BN', momentum=None))),
    ],
    ids=[
        'plain',
        'drops',
        'one image',
        'one position',
        'frozen',
        'norm_eval',
        'SyncBN',
        'cumulative',
    ],
)
def test_recomputation_changes_nothing(shape, kwargs):
    plain, checkpointed = _filled(**kwargs), _filled(with_cp=True, **kwargs)
    # Two steps: what the first leaves behind enters the second.
    for step in range(2):
        outs, grads, state = _step(plain, shape, seed=step)
        outs1, grads1, state1 = _step(checkpointed, shape, seed=step)
        assert_all_close(outs1, outs, 1e-6, f'step {step}')
        assert_same_buffers(state1, state, 1e-6)
        assert_same_gradients(grads1, grads, 1e-5)
    # Whatever was switched for the recomputation is switched back.
    modes = [
        {
            name: (module.training, getattr(module, 'track_running_stats', 0))
            for name, module in model.named_modules()
        }
        for model in (plain, checkpointed)
    ]
    assert modes[0] == modes[1]


@pytest.mark.parametrize('with_cp', [False, True])
def test_with_cp_recomputes(with_cp):
    """Every block runs a second time, or the switch does nothing."""
    model = _filled(with_cp=with_cp)
    calls = []
    blocks = [b for stage in model.network[::2] for b in stage]
    for i, block in enumerate(blocks):
        block.norm2.register_forward_hook(lambda *_, i=i: calls.append(i))
    outs = model(make_input(11, BATCH))
    assert sorted(calls) == list(range(len(blocks)))
    probe_loss(outs).backward()
    assert len(calls) == (2 if with_cp else 1) * len(blocks)


def test_with_cp_in_evaluation():
    plain, checkpointed = _filled().eval(), _filled(with_cp=True).eval()
    image = make_input(12, BATCH)
    found = []
    for model in (plain, checkpointed):
        state = buffers(model)
        outs = model(image)
        probe_loss(outs).backward()
        assert_same_buffers(buffers(model), state, 0)
        found.append((outs, gradients(model)))
    assert_all_close(found[1][0], found[0][0], 1e-6, 'outputs')
    assert_same_gradients(found[1][1], found[0][1], 1e-5)
    with torch.no_grad():
        assert_all_close(checkpointed(image), plain(image), 1e-6, 'no_grad')


# ------------------------------------------------------------ batch of one
@pytest.mark.parametrize('size', [(64, 64), (32, 32), (33, 64)])
def test_one_image_trains(size):
    model = _filled()
    outs, grads, state = _step(model, (1, 3, *size))
    assert probe_loss(outs).isfinite()
    broken = [
        n for n, g in grads.items() if g is None or not g.isfinite().all()
    ]
    assert not broken
    assert all(v.isfinite().all() for v in state.values())
    assert not [n for n, m in model.named_modules() if not m.training]


@pytest.mark.parametrize(('batch', 'updates'), [(1, 1), (2, 2)])
def test_bias_branch_updates_statistics_only_if_it_has_some(batch, updates):
    """The kernel branch always does: its map has K x K values."""
    model = _filled()
    units = {
        name: module
        for name, module in model.named_modules()
        if name.endswith('local_unit')
    }
    inputs = {}
    for name, unit in units.items():
        unit.register_forward_pre_hook(
            lambda _, args, name=name: inputs.update({name: args[0]})
        )
    before = buffers(model)
    model(make_input(13, (batch, 3, 64, 64)))
    after = buffers(model)
    assert len(units) == sum(micro()['layers'])
    for name, unit in units.items():
        norm = f'{name}.proj.0.bn'
        assert after[f'{norm}.num_batches_tracked'] == updates, norm
        if batch > 1:
            continue
        with torch.no_grad():
            pooled = F.adaptive_avg_pool2d(inputs[name], 7)
            seen = unit.proj[0].conv(pooled).transpose(0, 1).flatten(1)
        for stat, value in (
            ('running_mean', seen.mean(1)),
            ('running_var', seen.var(1)),
        ):
            expected = 0.9 * before[f'{norm}.{stat}'] + 0.1 * value
            assert_close(
                after[f'{norm}.{stat}'], expected, 1e-5, f'{norm}.{stat}'
            )


def test_single_position_leaves_all_statistics_of_its_stage():
    """One image of 32 x 32: the last stage is a 1 x 1 map."""
    model = _filled()
    before = buffers(model)
    model(make_input(14, (1, 3, 32, 32)))
    for name, value in buffers(model).items():
        moved = not torch.equal(value, before[name])
        # IDConv's kernel branch would see K x K copies of the one value,
        # OSRA's reductions one value in every stage that has any.
        kept = name.startswith(('network.5.', 'network.6.'))
        kept |= '.global_unit.sr.' in name
        assert moved != kept, name


def test_one_image_in_evaluation_is_untouched():
    model = _filled().eval()
    before = buffers(model)
    outs = model(make_input(15, (2, 3, 64, 64)))
    single = model(make_input(15, (2, 3, 64, 64))[:1])
    assert_all_close(single, [o[:1] for o in outs], 1e-5, 'first of two')
    assert_same_buffers(buffers(model), before, 0)


def test_one_image_after_conversion_to_sync_bn():
    """As mmengine's runner converts for ``sync_bn='torch'``."""
    plain = _filled()
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(_filled())
    assert plain.state_dict().keys() == model.state_dict().keys()
    outs, grads, state = _step(plain, (1, 3, 64, 64))
    outs1, grads1, state1 = _step(model, (1, 3, 64, 64))
    assert_all_close(outs1, outs, 1e-6, 'outputs')
    assert_same_gradients(grads1, grads, 1e-5)
    assert_same_buffers(state1, state, 1e-6)

"""Layer-wise learning rates for the models of all three tasks."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

import mmtransxnet
from mmtransxnet.engine.schedulers.warmup_cosine import WarmupCosineLR
from tests.support.models import MICRO
from tests.support.suite_configs import build, micro_config

RATE = 0.5
BASE = 1e-3


def wrapper(name, constructor, **paramwise):
    """An optimizer with layer-wise rates for a config's micro model."""
    model = build(micro_config(f'{name}transxnet_t_digits'))
    optim_wrapper = dict(
        type='OptimWrapper',
        constructor=constructor,
        optimizer=dict(type='AdamW', lr=BASE, weight_decay=0.05),
        paramwise_cfg=dict(layer_decay_rate=RATE, **paramwise),
    )
    return model, build_optim_wrapper(model, optim_wrapper)


def values(model, wrapper, key):
    by_id = {
        id(p): group[key]
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ('name', 'head'),
    [
        ('classification/', 'head.fc.weight'),
        ('detection/maskrcnn_', 'rpn_head.rpn_conv.weight'),
        ('detection/retinanet_', 'bbox_head.retina_cls.weight'),
        ('segmentation/sfpn_', 'decode_head.conv_seg.weight'),
    ],
)
def test_rates_decay_from_the_heads_to_the_stem(name, head):
    model, optim = wrapper(
        name,
        'LayerDecayOptimWrapperConstructor',
        custom_keys=dict(norm=dict(decay_mult=0.0)),
    )
    rates = values(model, optim, 'lr')
    # The micro network has 5 blocks: the stem is layer 0, heads are 6.
    assert rates[head] == BASE
    assert rates['backbone.patch_embed.proj.conv.weight'] == BASE * RATE**6
    assert rates['backbone.network.0.0.norm1.weight'] == BASE * RATE**5
    assert rates['backbone.network.6.0.norm1.weight'] == BASE * RATE
    decays = values(model, optim, 'weight_decay')
    assert decays['backbone.network.0.0.norm1.weight'] == 0
    assert decays[head] == 0.05


def test_mmpretrains_own_gives_classifiers_the_same_rates():
    found = [
        values(*wrapper('classification/', constructor), 'lr')
        for constructor in (
            'LayerDecayOptimWrapperConstructor',
            'mmpretrain.LearningRateDecayOptimWrapperConstructor',
        )
    ]
    assert found[0] == pytest.approx(found[1])


def test_other_factors_are_kept():
    model, optim = wrapper(
        'detection/retinanet_',
        'LayerDecayOptimWrapperConstructor',
        custom_keys={'patch_embed': dict(lr_mult=0.1)},
    )
    rate = values(model, optim, 'lr')['backbone.patch_embed.proj.conv.weight']
    assert rate == pytest.approx(BASE * RATE**6 * 0.1)


def test_no_rate_is_an_error():
    config = dict(
        type='OptimWrapper',
        constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=BASE),
    )
    with pytest.raises(ValueError, match='layer_decay_rate'):
        build_optim_wrapper(mmtransxnet.TransXNet(arch=MICRO), config)


def rates_over_epochs(default, *groups):
    """Rates of groups of parameters over 8 epochs, 2 of them a warm-up."""
    groups = [
        dict(params=[torch.nn.Parameter(torch.zeros(1))], **group)
        for group in groups
    ]
    optimizer = torch.optim.AdamW(groups, lr=default)
    schedule = WarmupCosineLR(
        optimizer, warmup_epochs=2, warmup_lr=0.01, eta_min=0.02, T_max=8
    )
    found = []
    for _ in range(8):
        found.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return [list(rates) for rates in zip(*found, strict=True)]


def test_a_rate_of_zero_stays_zero():
    """A frozen group, and an optimizer that trains nothing at all."""
    trained, frozen = rates_over_epochs(0.1, dict(), dict(lr=0.0))
    assert trained[0] == pytest.approx(0.01)
    assert max(trained) <= 0.1
    assert min(trained[2:]) > 0.02
    assert frozen == [0] * 8
    assert rates_over_epochs(0.0, dict(), dict(lr=0.0)) == [[0] * 8] * 2


def test_groups_have_rates_where_the_optimizer_has_none():
    """They are warmed up as if theirs were the optimizer's."""
    frozen, half, full = rates_over_epochs(
        0.0, dict(), dict(lr=0.05), dict(lr=0.1)
    )
    (expected,) = rates_over_epochs(0.1, dict())
    assert frozen == [0] * 8
    assert full == pytest.approx(expected)
    assert half == pytest.approx([rate / 2 for rate in expected])

"""What a config can say: sizes, outputs, freezing, norms, start weights."""

import copy
import itertools

import pytest
import torch
from mmengine.registry import MODELS, Registry
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmtransxnet
from mmtransxnet import TransXNet
from tests.support.compare import (
    assert_all_close,
    assert_close,
    assert_identical,
)
from tests.support.models import (
    MICRO,
    buffers,
    fill_by_name,
    make_input,
    micro,
    micro_model,
    probe_loss,
)


def _norms(model):
    return {
        n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)
    }


# ---------------------------------------------------------------- building
def test_registered_in_the_root_registry():
    model = MODELS.build(dict(type='TransXNet', arch=micro()))
    assert type(model) is TransXNet
    assert mmtransxnet.models.TransXNet is TransXNet
    assert mmtransxnet.TransXNet is TransXNet


def test_resolves_in_every_scope():
    """As in mmdet, mmseg, mmpretrain: children of the root registry."""
    child = Registry('model', parent=MODELS, scope='somewhere')
    model = child.build(dict(type='TransXNet', arch=micro()))
    assert type(model) is TransXNet


def test_caller_keeps_its_configs():
    kwargs = dict(
        arch=micro(),
        out_indices=[1, 3],
        norm_cfg=dict(type='GN', num_groups=1, eps=1e-6),
        conv_norm_cfg=dict(type='BN', momentum=0.01),
        act_cfg=dict(type='GELU'),
        init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'),
    )
    before = copy.deepcopy(kwargs)
    TransXNet(**kwargs)
    assert kwargs == before


def test_defaults_are_not_shared_between_models():
    before = TransXNet.__init__.__defaults__
    before = copy.deepcopy(before)
    TransXNet(micro())
    assert TransXNet.__init__.__defaults__ == before


def test_unknown_argument_is_refused():
    with pytest.raises(TypeError, match='drop_path'):
        TransXNet(micro(), drop_path=0.1)


@pytest.mark.parametrize('name', ['x', 'T', 'micro', ''])
def test_unknown_name_lists_the_names(name):
    with pytest.raises(ValueError) as error:
        TransXNet(name)
    for known in ('t', 'tiny', 's', 'small', 'b', 'base'):
        assert f"'{known}'" in str(error.value)


def _without(key):
    arch = micro()
    del arch[key]
    return arch


BAD_ARCHS = [
    ('missing', _without('sr_ratio'), 'sr_ratio'),
    ('misspelt', {**_without('layers'), 'depths': [1] * 4}, 'depths'),
    ('unknown', micro(drop=[0, 0, 0, 0]), 'drop'),
    ('short', micro(num_heads=[1, 2, 3]), 'num_heads'),
    ('long', micro(embed_dims=[16] * 5), 'embed_dims'),
    ('scalar', micro(kernel_size=7), 'kernel_size'),
    ('empty', {}, 'layers'),
]


@pytest.mark.parametrize(
    ('arch', 'culprit'),
    [case[1:] for case in BAD_ARCHS],
    ids=[case[0] for case in BAD_ARCHS],
)
def test_bad_arch_dict_lists_what_is_expected(arch, culprit):
    with pytest.raises(ValueError) as error:
        TransXNet(arch)
    for key in (culprit, *MICRO):
        assert key in str(error.value)


def test_arch_may_be_tuples():
    lists = TransXNet(micro())
    tuples = TransXNet({k: tuple(v) for k, v in MICRO.items()})
    shapes = [
        {k: v.shape for k, v in m.state_dict().items()}
        for m in (lists, tuples)
    ]
    assert shapes[0] == shapes[1]


def test_in_channels():
    model = TransXNet(micro(), in_channels=5).eval()
    assert model.patch_embed.proj.conv.weight.shape == (16, 5, 7, 7)
    outs = model(make_input(1, (1, 5, 32, 32)))
    assert [o.shape[1] for o in outs] == MICRO['embed_dims']


# ----------------------------------------------------------------- outputs
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(range(4), n)]


@pytest.fixture(scope='module')
def full():
    return micro_model().eval()


@pytest.mark.parametrize('indices', SUBSETS, ids=str)
def test_outputs_are_the_chosen_stages(full, indices):
    model = micro_model(out_indices=indices).eval()
    image = make_input(1, (2, 3, 60, 70))
    with torch.no_grad():
        outs, everything = model(image), full(image)
    assert isinstance(outs, tuple)
    assert_all_close(outs, [everything[i] for i in indices], 1e-6, 'outputs')
    assert model.out_channels == tuple(MICRO['embed_dims'][i] for i in indices)
    assert model.out_strides == tuple(4 * 2**i for i in indices)
    for out, channels, stride in zip(
        outs, model.out_channels, model.out_strides, strict=True
    ):
        size = (-(-60 // stride), -(-70 // stride))
        assert out.shape == (2, channels, *size)


@pytest.mark.parametrize('indices', SUBSETS, ids=str)
def test_only_chosen_stages_have_an_output_norm(full, indices):
    keys = set(TransXNet(micro(), out_indices=indices).state_dict())
    dropped = {f'norm{2 * i}' for i in range(4) if i not in indices}
    expected = {k for k in full.state_dict() if k.split('.')[0] not in dropped}
    assert keys == expected


@pytest.mark.parametrize(
    'indices', [(), (0, 0), (0, 1, 1, 2), (4,), (-1,), (0, 1, 4), (2, 1)]
)
def test_bad_out_indices(indices):
    with pytest.raises(ValueError, match='out_indices'):
        TransXNet(micro(), out_indices=indices)


@pytest.mark.parametrize('size', [(31, 64), (64, 31), (8, 8), (1, 500)])
def test_small_input_is_refused_by_name(full, size):
    with pytest.raises(ValueError) as error:
        full(torch.zeros(1, 3, *size))
    for number in (*size, 32):
        assert str(number) in str(error.value)


def test_smallest_input_is_accepted(full):
    outs = full(make_input(1, (1, 3, 32, 32)))
    assert [tuple(o.shape[2:]) for o in outs] == [
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ]


# ------------------------------------------------------- norms, activation
def test_conv_norm_cfg_reaches_every_batch_norm():
    cfg = dict(type='BN', momentum=0.03, eps=1e-3)
    model = TransXNet(micro(), conv_norm_cfg=cfg)
    norms = _norms(model)
    default = _norms(TransXNet(micro()))
    assert norms.keys() == default.keys()
    wrong = [
        name
        for name, norm in norms.items()
        if (norm.momentum, norm.eps) != (0.03, 1e-3)
    ]
    assert not wrong
    assert {(n.momentum, n.eps) for n in default.values()} == {(0.1, 1e-5)}


def test_sync_bn_is_a_matter_of_config():
    plain = micro_model(224)
    model = TransXNet(micro(), conv_norm_cfg=dict(type='SyncBN'))
    norms = _norms(model)
    assert norms.keys() == _norms(plain).keys()
    wrong = [
        name
        for name, norm in norms.items()
        if not isinstance(norm, nn.SyncBatchNorm)
    ]
    assert not wrong
    model.load_state_dict(plain.state_dict())
    # On one process SyncBN is BN, in training too, and with one image.
    for batch in (2, 1):
        image = make_input(2, (batch, 3, 64, 64))
        assert_all_close(
            model.train()(image), plain.train()(image), 1e-5, f'batch {batch}'
        )


def test_norm_cfg_reaches_every_group_norm():
    model = TransXNet(
        micro(), norm_cfg=dict(type='GN', num_groups=2, eps=1e-3)
    )
    groups = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(groups) == 2 * sum(MICRO['layers']) + 4
    assert {(m.num_groups, m.eps) for m in groups} == {(2, 1e-3)}
    default = TransXNet(micro())
    groups = [m for m in default.modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_groups, m.eps) for m in groups} == {(1, 1e-5)}


def test_act_cfg_reaches_every_activation():
    # In place, as ReLU is by default in mmcv: nothing may rely on a tensor
    # that an activation overwrites.
    model = TransXNet(micro(), act_cfg=dict(type='ReLU', inplace=True))
    assert not [m for m in model.modules() if isinstance(m, nn.GELU)]
    assert [m for m in model.modules() if isinstance(m, nn.ReLU)]
    fill_by_name(model).train()
    probe_loss(model(make_input(3, (2, 3, 64, 64)))).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing


# ------------------------------------------------------------------ frozen
def _stage_parts(stage):
    """Prefixes of everything that belongs to a stage."""
    parts = [f'network.{2 * stage}.', f'norm{2 * stage}.']
    if stage:
        parts.append(f'network.{2 * stage - 1}.')
    # A parameter list entry has no dot behind its number.
    return (*parts, f'relative_pos_enc.{stage}')


def _frozen_prefixes(frozen_stages):
    prefixes = () if frozen_stages < 0 else ('patch_embed.',)
    for stage in range(frozen_stages):
        prefixes += _stage_parts(stage)
    return prefixes


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3, 4])
def test_frozen_stages(frozen):
    prefixes = _frozen_prefixes(frozen)
    model = TransXNet(
        micro(), frozen_stages=frozen, drop_rate=0.5, drop_path_rate=0.5
    )
    fill_by_name(model)

    def check(when):
        for name, param in model.named_parameters():
            expected = not name.startswith(prefixes)
            assert param.requires_grad == expected, f'{when}: {name}'
        for name, module in model.named_modules():
            if f'{name}.'.startswith(prefixes) and prefixes:
                assert not module.training, f'{when}: {name}'

    check('after __init__')
    assert model.train() is model
    check('after train()')
    model.eval()
    model.train(True)
    check('after eval() and train()')
    trainable = [
        n for n in _norms(model) if not prefixes or not n.startswith(prefixes)
    ]
    assert all(_norms(model)[n].training for n in trainable)

    before = buffers(model)
    image = make_input(4, (2, 3, 64, 64)).requires_grad_()
    probe_loss(model(image)).backward()
    for name, param in model.named_parameters():
        if name.startswith(prefixes) and prefixes:
            assert param.grad is None, f'gradient: {name}'
        else:
            assert param.grad is not None, f'no gradient: {name}'
    for name, value in buffers(model).items():
        moved = not torch.equal(value, before[name])
        expected = not (prefixes and name.startswith(prefixes))
        assert moved == expected, f'buffer: {name}'


def test_frozen_stages_compute_as_in_evaluation():
    model = micro_model(224, frozen_stages=2, drop_path_rate=0.9)
    image = make_input(5, (2, 3, 64, 64))
    trained = model.train()(image)[:2]
    with torch.no_grad():
        assert_all_close(trained, model.eval()(image)[:2], 1e-6, 'frozen')


@pytest.mark.parametrize('frozen', [-2, 5, 100])
def test_bad_frozen_stages(frozen):
    with pytest.raises(ValueError, match='frozen_stages'):
        TransXNet(micro(), frozen_stages=frozen)


def test_norm_eval_keeps_running_statistics():
    model = micro_model(224, norm_eval=True, drop_rate=0.1)
    assert model.train() is model
    assert not [n for n, m in _norms(model).items() if m.training]
    # Only the norms are in evaluation mode.
    assert model.training
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert drops
    assert all(m.training for m in drops)
    before = buffers(model)
    probe_loss(model(make_input(6, (2, 3, 64, 64)))).backward()
    assert_identical(buffers(model), before)
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing, 'norms in evaluation mode still learn'


def test_train_and_eval_return_the_model():
    model = TransXNet(micro())
    assert model.train() is model
    assert model.train(False) is model
    assert not model.training
    assert not [m for m in model.modules() if m.training]
    assert model.eval() is model


# ----------------------------------------------------------- start weights
@pytest.mark.parametrize('when', ['built', 'init_weights'])
def test_start_weights_are_the_published_ones(when):
    model = TransXNet(micro())
    if when == 'init_weights':
        # What a runner calls; mmcv's modules have ideas of their own.
        model.init_weights()
    drawn = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            drawn.append(module.weight)
            if module.bias is not None:
                assert not module.bias.any(), f'{name}.bias'
        elif isinstance(module, nn.GroupNorm | _BatchNorm):
            assert (module.weight == 1).all(), f'{name}.weight'
            assert not module.bias.any(), f'{name}.bias'
        elif 'layer_scale' in name:
            channels = module.bias.numel()
            expected = torch.full((channels, 1, 1, 1), 1e-5)
            assert torch.equal(module.weight, expected), f'{name}.weight'
            assert torch.equal(module.bias, torch.zeros(channels)), name
        elif name.endswith('local_unit'):
            drawn += [module.weight, module.bias]
    for weight in drawn:
        flat = weight.detach().flatten()
        # Four standard errors, whatever the number of values.
        slack = 4 * 0.02 / flat.numel() ** 0.5
        assert abs(flat.mean()) < slack
        assert abs(flat.std() - 0.02) < slack
        assert flat.unique().numel() > 1
    for table in model.relative_pos_enc:
        assert not table.any()


def test_layer_scale_init_value():
    model = TransXNet(micro(), layer_scale_init_value=0.25)
    scales = [
        p
        for n, p in model.named_parameters()
        if 'layer_scale' in n and n.endswith('weight')
    ]
    assert len(scales) == 2 * sum(MICRO['layers'])
    assert all((p == 0.25).all() for p in scales)


def test_pretrained_by_init_cfg(tmp_path):
    source = micro_model(224)
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(3)
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=state), path)
    init_cfg = dict(
        type='Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    model = MODELS.build(
        dict(type='TransXNet', arch=micro(), init_cfg=init_cfg)
    )
    model.init_weights()
    assert_identical(model.state_dict(), source.state_dict())


# ------------------------------------------------------------- layer depth
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth_grows_along_the_network(prefix):
    model = TransXNet(micro(layers=[2, 1, 3, 2]))
    depths = {}
    for name, _ in model.named_parameters():
        depth, count = model.get_layer_depth(prefix + name, prefix)
        assert isinstance(depth, int), name
        assert 0 <= depth < count, name
        depths[name] = depth
    head = f'{prefix}head.fc.weight' if not prefix else 'head.fc.weight'
    assert model.get_layer_depth(head, prefix) == (count - 1, count)

    assert depths['patch_embed.proj.conv.weight'] == 0
    # All parameters of one part have one depth; parts never go back.
    order = []
    for position, part in enumerate(model.network):
        blocks = range(len(part)) if position % 2 == 0 else ['proj']
        order += [f'network.{position}.{block}.' for block in blocks]
    found = []
    for part in order:
        values = {d for n, d in depths.items() if n.startswith(part)}
        assert len(values) == 1, f'{part}: depths {values}'
        found += values
    assert found == sorted(found)
    assert found[0] >= 1
    assert found[-1] > found[0]
    for stage in range(4):
        first = depths[f'network.{2 * stage}.0.norm1.weight']
        last = found[order.index(f'network.{2 * stage}.0.')]
        assert depths[f'relative_pos_enc.{stage}'] <= first
        assert depths[f'norm{2 * stage}.weight'] >= last


def test_published_sizes_use_every_layer_id():
    model = TransXNet('t')
    found = {
        model.get_layer_depth(name) for name, _ in model.named_parameters()
    }
    (count,) = {count for _, count in found}
    assert {depth for depth, _ in found} == set(range(count))


def test_drop_rate_reaches_the_dropouts():
    model = TransXNet(micro(), drop_rate=0.3)
    rates = {m.p for m in model.modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.3}
    fill_by_name(model)
    image = make_input(7, (2, 3, 64, 64))
    calls = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(
                lambda _, args, out: calls.append(args[0].shape[1])
            )
    with torch.no_grad():
        model.eval()(image)
    # In each MS-FFN, first the hidden channels and then the output's.
    expected = []
    for stage, depth in enumerate(MICRO['layers']):
        channels = MICRO['embed_dims'][stage]
        hidden = MICRO['mlp_ratios'][stage] * channels
        expected += depth * [hidden, channels]
    assert calls == expected
    with torch.no_grad():
        assert_all_close(model.eval()(image), model(image), 0, 'evaluation')
        plain = micro_model(224).eval()
        assert_close(model(image)[3], plain(image)[3], 1e-6, 'evaluation')
        first, second = (model.train()(image)[3] for _ in range(2))
    assert not torch.allclose(first, second)

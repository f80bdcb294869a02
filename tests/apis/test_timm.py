"""What timm's generic model tests ask of every model, asked of ours.

In our words: timm does not ship its tests.
"""

import argparse
import math

import pytest
import timm
import torch
from timm.layers import create_feature_extractor, get_graph_node_names
from timm.models import FeatureInfo, group_parameters

from mmtransxnet import TransXNet
from mmtransxnet.apis.timm import TimmTransXNet
from mmtransxnet.weights.published import VARIABLE
from tests.support.compare import assert_close
from tests.support.golden import official_keys
from tests.support.models import fill_by_name, make_input, micro

NAMES = ['transxnet_t', 'transxnet_s', 'transxnet_b', 'transxnet_b_384']
T = 'transxnet_t'
# Side in pixels; the published sizes are made for any.
SIDE = 64


def create(name=T, **changes):
    return timm.create_model(name, **changes).eval()


def small(**changes):
    """The same class, in a fraction of the time."""
    settings = dict(arch=micro(), num_classes=10, img_size=64)
    return fill_by_name(TimmTransXNet(**{**settings, **changes})).eval()


def images(side=SIDE, channels=3, batch=1):
    return make_input(0, (batch, channels, side, side))


def check_features(features, info, side, batch=1):
    channels, reductions = info.channels(), info.reduction()
    assert len(features) == len(channels) >= 3
    for feature, width, reduction in zip(
        features, channels, reductions, strict=True
    ):
        size = math.ceil(side / reduction)
        assert feature.shape == (batch, width, size, size)
        assert feature.isfinite().all()


# ------------------------------------------------- the models by their names
@pytest.mark.parametrize('name', NAMES)
def test_description_matches_the_model(name):
    model = create(name)
    state, config = model.state_dict(), model.default_cfg
    assert config is model.pretrained_cfg
    assert config['first_conv'] + '.weight' in state
    assert config['classifier'] + '.weight' in state
    assert config['architecture'] == name
    side = 384 if name.endswith('384') else 224
    assert config['input_size'] == (3, side, side)
    assert config['crop_pct'] == (0.95 if '_b' in name else 0.9)
    assert config['interpolation'] == 'bicubic'
    assert (model.num_classes, model.in_chans) == (1000, 3)
    assert model.num_features == model.head_hidden_size > 0
    # The design size is that of the weights.
    assert model.relative_pos_enc[3].shape[-2] == (side // 32) ** 2
    with torch.no_grad():
        logits = model(images())
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()


@pytest.mark.parametrize('size', ['t', 's', 'b'])
def test_published_names_are_the_state_dict(size):
    facts = official_keys()[size]
    state = create(f'transxnet_{size}').state_dict()
    assert len(state) == facts['classification_count']
    if 'classification' in facts:
        shapes = {name: list(value.shape) for name, value in state.items()}
        assert shapes == facts['classification']


def test_pooled_sizes_at_the_design_size():
    model = create()
    config = model.default_cfg
    with torch.no_grad():
        features = model.forward_features(images(config['input_size'][-1]))
        assert features.shape == (1, model.num_features, *config['pool_size'])
        logits = model.forward_head(features, pre_logits=True)
    assert logits.shape == (1, model.head_hidden_size)


def test_names_are_listed():
    assert timm.list_models('transxnet*') == sorted(NAMES)
    assert f'{T}.in1k' in timm.list_pretrained('transxnet*')


def test_training_step_reaches_every_parameter():
    model = timm.create_model(T, num_classes=42, drop_path_rate=0.1).train()
    logits = model(images(batch=2))
    logits.mean().backward()
    assert logits.shape == (2, 42)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('kind', [None, 'getter', 'hook'])
def test_features_only(kind):
    extra = {} if kind is None else {'feature_cls': kind}
    model = create(features_only=True, **extra)
    with torch.no_grad():
        check_features(model(images()), model.feature_info, SIDE)
    assert model.feature_info.channels() == [48, 96, 224, 448]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


@pytest.mark.parametrize('indices', [(0, 2), (1,), (-2, -1), 2])
def test_features_of_some_stages(indices):
    everything = create(features_only=True)
    model = create(features_only=True, out_indices=indices)
    state = everything.state_dict()
    model.load_state_dict({k: state[k] for k in model.state_dict()})
    stages = [-2, -1] if indices == 2 else list(indices)
    with torch.no_grad():
        expected = everything(images())
        found = model(images())
    assert len(found) == len(stages)
    for stage, feature in zip(stages, found, strict=True):
        assert_close(feature, expected[stage], 1e-6, f'stage {stage}')
    assert model.feature_info.channels() == [f.shape[1] for f in found]


def test_other_devices_and_types():
    assert create(device='meta').classifier[2].weight.is_meta
    model = create(dtype=torch.bfloat16)
    assert model(images().bfloat16()).dtype == torch.bfloat16


# ------------------------------------------------------- the class, any size
def test_features_are_the_backbones():
    model = small()
    backbone = TransXNet(arch=micro(), image_size=64, out_indices=(3,)).eval()
    state = model.state_dict()
    state['norm6.weight'] = state.pop('classifier.0.weight')
    state['norm6.bias'] = state.pop('classifier.0.bias')
    backbone.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith('classifier')}
    )
    with torch.no_grad():
        (expected,) = backbone(images())
        found = model.forward_features(images())
        logits = model(images())
    assert torch.equal(found, expected)
    # The published head: average, 1x1 convolution.
    weight = model.classifier[2].weight.flatten(1)
    by_hand = expected.mean((2, 3)) @ weight.T + model.classifier[2].bias
    assert_close(logits, by_hand, 1e-5, 'logits')


def test_gradient_checkpointing_changes_nothing():
    model = small().train()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 0.0
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images(batch=2)).square().mean().backward()
        results.append(model.network[0][0].pos_embed.weight.grad.clone())
        assert model.network[2][0].with_cp is enable
    assert_close(*results, 1e-5, 'gradient')


def test_classifier_is_replaced():
    model = small()
    assert model.get_classifier().out_channels == 10
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(images()).shape == (1, 7)
    assert model.get_classifier().weight.std() < 0.03
    pooled = model.forward_head(model.forward_features(images()), True)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert torch.equal(model(images()), pooled)
    model.reset_classifier(0, '')
    assert model(images()).shape == (1, 64, 2, 2)
    assert not model.classifier.training


@pytest.mark.parametrize('pool', ['avg', 'max', 'avgmax', 'catavgmax', ''])
def test_pooling(pool):
    model = small(global_pool=pool)
    assert model.global_pool == pool
    shape = (1, 10) if pool else (1, 10, 2, 2)
    assert model(images()).shape == shape
    bare = small(num_classes=0, global_pool=pool)
    assert bare(images()).ndim == (2 if pool else 4)


def test_dropout_is_of_training_only():
    model = small(drop_rate=0.5)
    features = model.forward_features(images())
    assert torch.equal(
        model.forward_head(features), model.forward_head(features)
    )
    model.train()
    first, second = (model.forward_head(features) for _ in range(2))
    assert not torch.equal(first, second)


def test_intermediates():
    model = small()
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    with torch.no_grad():
        final, features = model.forward_intermediates(images())
        check_features(features, info, SIDE)
        assert torch.equal(final, model.forward_features(images()))
        early = model.forward_intermediates(
            images(), indices=[1], stop_early=True, intermediates_only=True
        )
        assert torch.equal(early[0], features[1])
        (normed,) = model.forward_intermediates(
            images(), 1, norm=True, intermediates_only=True
        )
    assert torch.equal(normed, final)
    with pytest.raises(ValueError, match='NCHW'):
        model.forward_intermediates(images(), output_fmt='NLC')


def test_stopping_early_stops():
    model = small()
    model.network[4] = None
    model.forward_intermediates(images(), [1], stop_early=True)


def test_pruning_leaves_what_is_needed():
    model = small()
    whole = sum(p.numel() for p in model.parameters())
    expected = model.forward_intermediates(
        images(), [1], intermediates_only=True
    )
    assert model.prune_intermediate_layers([1]) == [1]
    found = model.forward_intermediates(images(), [1], intermediates_only=True)
    assert torch.equal(found[0], expected[0])
    assert sum(p.numel() for p in model.parameters()) < whole / 2
    assert model(images()).shape == (1, model.num_features, 8, 8)
    # And it still trains.
    model.train()(images(batch=2)).sum().backward()


def test_layers_are_those_of_layer_wise_decay():
    model = small()
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    for name, _ in model.named_parameters():
        assert groups[name] == model.get_layer_depth(name)[0], name
    coarse = group_parameters(
        model, model.group_matcher(coarse=True), reverse=True
    )
    assert coarse['patch_embed.proj.conv.weight'] == 0
    assert coarse['network.3.proj.conv.weight'] == 3
    assert coarse['network.4.1.norm1.weight'] == 3
    assert coarse['classifier.2.weight'] == 5


def test_symbolic_trace_computes_the_same():
    model = small()
    last = get_graph_node_names(model)[1][-1]
    traced = create_feature_extractor(model, [last])
    for side in (64, 96):
        assert torch.equal(traced(images(side))[last], model(images(side)))


def test_small_images_are_refused():
    with pytest.raises(ValueError, match='at least 32 x 32'):
        small()(images(31))


def test_design_sizes_are_squares():
    assert small(img_size=(64, 64)).relative_pos_enc[3].shape[-2] == 4
    with pytest.raises(ValueError, match='squares'):
        small(img_size=(64, 96))


# -------------------------------------------------------------------- weights
@pytest.fixture(scope='module')
def release(tmp_path_factory):
    """A model, and a file of the published format with its weights."""
    folder = tmp_path_factory.mktemp('release')
    source = fill_by_name(create())
    content = {
        'epoch': 300,
        'arch': T,
        'state_dict': source.state_dict(),
        'args': argparse.Namespace(lr=2e-3),
    }
    torch.save(content, folder / 'transx-t.pth.tar')
    return source, folder


@pytest.fixture
def published(release, monkeypatch):
    source, folder = release
    monkeypatch.setenv(VARIABLE, str(folder))
    return source


def test_pretrained(published):
    model = create(pretrained=True)
    found = model.state_dict()
    for name, value in published.state_dict().items():
        assert torch.equal(found[name], value), name
    assert 'state_dict' not in model.pretrained_cfg


def test_pretrained_adapts(published):
    source = published
    model = create(pretrained=True, in_chans=1, num_classes=5)
    assert model(images(channels=1)).shape == (1, 5)
    expected = source.patch_embed.proj.conv.weight.sum(1, keepdim=True)
    assert_close(
        model.patch_embed.proj.conv.weight, expected, 1e-5, 'stem weight'
    )
    assert model.classifier[2].weight.std() < 0.03  # new
    assert torch.equal(model.classifier[0].weight, source.classifier[0].weight)

    features = create(pretrained=True, features_only=True)
    assert torch.equal(
        features.model.network[6][0].pos_embed.weight,
        source.network[6][0].pos_embed.weight,
    )
    assert 'state_dict' not in features.pretrained_cfg


def test_pretrained_at_another_design_size(published):
    source = published
    model = create(pretrained=True, img_size=256)
    assert model.relative_pos_enc[3].shape[-2:] == (64, 64)
    # Resized on load or in the forward pass: the same formula.
    with torch.no_grad():
        x = images(256)
        assert_close(model(x), source(x), 1e-4, 'logits')


def test_weights_of_the_users_own(published, tmp_path):
    path = tmp_path / 'own.pth'
    state = dict(published.state_dict())
    state['classifier.2.bias'] = torch.ones(1000)
    torch.save(state, path)
    model = create(pretrained=True, pretrained_cfg_overlay={'file': str(path)})
    assert torch.equal(model.classifier[2].bias, state['classifier.2.bias'])


def test_saved_for_the_hub_and_loaded(tmp_path):
    model = fill_by_name(create(num_classes=3))
    timm.models.save_for_hf(model, tmp_path)
    again = create(f'local-dir:{tmp_path}', pretrained=True)
    assert again.num_classes == 3
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))


# --------------------------------------------------------------- TorchScript
def test_torchscript():
    model = small()
    scripted = torch.jit.script(model)
    for side in (64, 75):
        with torch.no_grad():
            expected = model(images(side, batch=2))
            logits = scripted(images(side, batch=2))
        assert_close(logits, expected, 1e-5, f'{side} pixels')


def test_torchscript_of_a_symbolic_trace():
    model = small()
    last = get_graph_node_names(model)[1][-1]
    scripted = torch.jit.script(create_feature_extractor(model, [last]))
    with torch.no_grad():
        (logits,) = scripted(images(75)).values()
        assert_close(logits, model(images(75)), 1e-5, 'scripted')

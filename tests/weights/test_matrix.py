"""Every format of weights fills every model it can fill.

docs/weights.md shows the matrix.
"""

import copy
import json

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from mmtransxnet import TransXNet
from mmtransxnet.weights import load_weights
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of
from tests.support.compare import assert_identical
from tests.support.golden import official_keys
from tests.support.models import MICRO
from tests.support.paths import DATA
from tests.support.published_files import (
    DENSE,
    FORMATS,
    SIZE,
    build,
    classification_state,
    classifier,
    dense_dict,
    prefixed,
    runner_dict,
)
from tests.support.suite_configs import build as build_model
from tests.support.suite_configs import load as load_config

pytestmark = pytest.mark.distribution


def pretrained(path, **more):
    return dict(type='Pretrained', checkpoint=path, **more)


# ------------------------------------------------------------ the targets
def by_load_weights(path):
    model = TransXNet(MICRO, SIZE)
    load_weights(model, path)
    return model


def by_init_cfg(path):
    model = TransXNet(MICRO, SIZE, init_cfg=pretrained(path))
    model.init_weights()
    return model


def in_a_detector(path):
    """As a run starts: the detector initialises all its parts."""
    detector = build(DENSE['retinanet'], pretrained(path))
    detector.init_weights()
    return detector.backbone


def classifier_by_load_weights(path):
    model = classifier()
    load_weights(model, path)
    return model


def classifier_by_mmengine(path):
    """What load_from, tools/test.py and mmpretrain's inferencer call."""
    model = classifier()
    load_checkpoint(model, path)
    return model


def classifier_by_torch(path):
    model = classifier()
    model.load_state_dict(state_dict_of(read_checkpoint(path)))
    return model


BACKBONES = [by_load_weights, by_init_cfg, in_a_detector]
CLASSIFIERS = [
    classifier_by_load_weights,
    classifier_by_mmengine,
    classifier_by_torch,
]


def check_backbone(model, state):
    """All weights of the file, and norms that nothing has touched."""
    own = model.state_dict()
    for name, value in state.items():
        if not name.startswith('classifier.'):
            assert torch.equal(own.pop(name), value), name
    norms = {f'norm{2 * stage}' for stage in model.out_indices}
    assert {name.split('.')[0] for name in own} == norms
    for name, value in own.items():
        assert (value == (1 if name.endswith('weight') else 0)).all(), name


def check_classifier(model, state):
    own = model.state_dict()
    head = own.pop('head.fc.weight')
    assert torch.equal(head, state['classifier.2.weight'].flatten(1))
    renamed = {
        'backbone.norm6.weight': 'classifier.0.weight',
        'backbone.norm6.bias': 'classifier.0.bias',
        'head.fc.bias': 'classifier.2.bias',
    }
    for name, value in own.items():
        theirs = renamed.get(name, name.removeprefix('backbone.'))
        assert torch.equal(value, state[theirs]), name
    assert len(own) + 1 == len(state)


# ------------------------------------------- classification checkpoints
@pytest.mark.parametrize('target', BACKBONES)
@pytest.mark.parametrize('form', FORMATS)
def test_classification_fills_a_backbone(files, state, form, target):
    check_backbone(target(files[form]), state)


@pytest.mark.parametrize('target', CLASSIFIERS)
@pytest.mark.parametrize('form', FORMATS)
def test_classification_fills_a_classifier(files, state, form, target):
    check_classifier(target(files[form]), state)


def test_a_classifier_computes_what_the_published_one_does(files, state):
    """Norm, average, 1x1 convolution, as the paper's network ends."""
    model = classifier_by_mmengine(files['training dict']).eval()
    backbone = TransXNet(MICRO, SIZE, out_indices=(3,)).eval()
    backbone.norm6 = torch.nn.Identity()
    load_weights(backbone, files['bare'])
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        (x,) = backbone(image)
        weight, bias = (state[f'classifier.0.{n}'] for n in ('weight', 'bias'))
        x = torch.nn.functional.group_norm(x, 1, weight, bias)
        x = x.mean((2, 3), keepdim=True)
        weight, bias = (state[f'classifier.2.{n}'] for n in ('weight', 'bias'))
        expected = torch.nn.functional.conv2d(x, weight, bias).flatten(1)
        actual = model.head.fc(model.extract_feat(image)[-1])
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_names_are_the_published_ones():
    """At T size, all names and shapes, in a backbone and a classifier."""
    state = classification_state('t', 224, 1000)
    facts = official_keys()['t']['classification']
    assert {name: list(v.shape) for name, v in state.items()} == facts


@pytest.fixture(scope='module')
def size_t(tmp_path_factory):
    """The training dict of T."""
    state = classification_state('t', 224, 1000)
    path = tmp_path_factory.mktemp('t') / 'transx-t.pth.tar'
    FORMATS['training dict'](state, path)
    return str(path), state


def test_size_t_starts_the_published_detectors(size_t, monkeypatch):
    """By the config as it stands: transxnet://t."""
    path, state = size_t
    monkeypatch.setenv('TRANSXNET_WEIGHTS', path.rpartition('/')[0])
    config = load_config(f'configs/{DENSE["retinanet"]}.py')
    model = MODELS.build(config.model)
    model.init_weights()
    check_backbone(model.backbone, state)


def test_size_t_fills_the_classifier_of_the_config(size_t):
    path, state = size_t
    config = load_config('configs/classification/transxnet_t.py')
    model = MODELS.build({**config.model, 'train_cfg': None})
    load_checkpoint(model, path, strict=True)
    check_classifier(model, state)


# -------------------------------------------------- dense checkpoints
@pytest.mark.parametrize('kind', DENSE)
def test_heads_have_the_names_of_the_published_ones(kind):
    """data/dense_keys.json: as mmdet 2.28.2 and mmseg 0.30.0 built them."""
    model = build_model(load_config(f'configs/{DENSE[kind]}.py'), 'meta')
    own = {
        name: list(value.shape)
        for name, value in model.state_dict().items()
        if not name.startswith('backbone.')
    }
    assert own == json.loads((DATA / 'dense_keys.json').read_text())[kind]


@pytest.fixture(params=DENSE)
def dense(request, tmp_path):
    """A published dense file, its weights and the config's name."""
    model = build(DENSE[request.param])
    state = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    # The published backbones have a norm on all four outputs, RetinaNet's
    # first is not used.
    for kind in ('weight', 'bias'):
        state.setdefault(f'backbone.norm0.{kind}', torch.randn(16))
    path = tmp_path / 'dense.pth'
    torch.save(dense_dict(state), path)
    return str(path), state, DENSE[request.param]


def dense_by_load_weights(model, path):
    load_weights(model, path)


def dense_by_mmengine(model, path):
    # Strict: nothing is missing, nothing unknown.
    load_checkpoint(model, path, strict=True)


@pytest.mark.parametrize('load', [dense_by_load_weights, dense_by_mmengine])
def test_dense_fills_its_model(dense, load):
    path, state, name = dense
    model = build(name)
    load(model, path)
    # The file has a norm that the model leaves out.
    own = model.state_dict()
    assert_identical(own, {key: state[key] for key in own})


@pytest.mark.parametrize('prefix', [{}, {'prefix': 'backbone.'}])
def test_dense_fills_a_backbone(dense, prefix):
    path, state, _ = dense
    init_cfg = pretrained(path, **prefix)
    model = TransXNet(MICRO, SIZE, init_cfg=init_cfg)
    model.init_weights()
    for key, value in model.state_dict().items():
        assert_identical(value, state[f'backbone.{key}'], key)


# --------------------------------------------------- our own checkpoints
@pytest.fixture
def own(tmp_path):
    """A Runner's classifier checkpoint, wrapped as DDP does."""
    model = classifier()
    state = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    path = tmp_path / 'epoch_3.pth'
    torch.save(runner_dict(prefixed(state, 'module.')), path)
    return str(path), state


@pytest.mark.parametrize('load', [dense_by_load_weights, dense_by_mmengine])
def test_own_checkpoint_fills_its_model(own, load):
    path, state = own
    model = classifier()
    load(model, path)
    assert_identical(model.state_dict(), state)


@pytest.mark.parametrize('prefix', [{}, {'prefix': 'backbone.'}])
def test_own_classifier_starts_a_detector(own, prefix):
    path, state = own
    detector = build(DENSE['maskrcnn'], pretrained(path, **prefix))
    detector.init_weights()
    for key, value in detector.backbone.state_dict().items():
        if f'backbone.{key}' in state:
            assert torch.equal(value, state[f'backbone.{key}']), key
        else:
            assert key.startswith(('norm0.', 'norm2.', 'norm4.'))


def test_a_model_is_its_own_copy(own):
    """EMA copies models; the copy reads published weights as well."""
    path, _ = own
    model = copy.deepcopy(classifier())
    load_checkpoint(model, path, strict=True)

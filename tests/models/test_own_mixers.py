"""Other token mixers and feed-forward networks, chosen by config."""

import importlib.util
import re

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmtransxnet import TransXNet
from mmtransxnet.analysis.dynamics import observe_backbone
from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.models import fold, variants
from mmtransxnet.utils.errors import UserError
from tests.support.compare import assert_all_close, assert_identical
from tests.support.models import (
    fill_by_name,
    make_input,
    micro,
    micro_model,
    probe_loss,
)
from tests.support.paths import ROOT

VARIANTS = [
    dict(token_mixer_cfg=dict(type='StaticMixer')),
    dict(token_mixer_cfg=dict(type='LocalMixer')),
    dict(token_mixer_cfg=dict(type='UnenhancedMixer')),
    dict(token_mixer_cfg=dict(type='UnrefinedMixer')),
    dict(ffn_cfg=dict(type='MSFFN', kernel_sizes=(3,))),
]


def name_of(changes):
    (config,) = changes.values()
    return config['type']


def example_of_docs():
    """The mixer of docs/backbone.md, as it stands there."""
    text = (ROOT / 'docs/backbone.md').read_text()
    (code,) = re.findall(r'```python\n(.*?class \w+Mixer.*?)```', text, re.S)
    return code


@pytest.fixture
def own_mixer(tmp_path):
    # TorchScript reads the source, so it must be a file.
    path = tmp_path / 'own_mixer.py'
    path.write_text(example_of_docs())
    spec = importlib.util.spec_from_file_location('own_mixer', path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    MODELS.module_dict.pop('GatedMixer')


def test_defaults_are_the_papers():
    explicit = micro_model(
        token_mixer_cfg=dict(type='DMixer'), ffn_cfg=dict(type='MSFFN')
    )
    image = make_input(0, (2, 3, 64, 64))
    assert_identical(explicit(image), micro_model()(image))
    assert list(explicit.state_dict()) == list(micro_model().state_dict())


def test_ten_lines_of_the_docs(own_mixer):
    """It builds, trains, folds and scripts, with the shapes it promises."""
    lines = example_of_docs().split('class GatedMixer')[1].splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
    model = TransXNet(
        micro(),
        image_size=64,
        token_mixer_cfg=dict(type='GatedMixer', size=5),
    )
    fill_by_name(model)
    assert model.network[0][0].token_mixer.conv.kernel_size == (5, 5)
    image = make_input(0, (2, 3, 64, 96))
    outs = model(image)
    assert [tuple(out.shape) for out in outs] == [
        (2, 16, 16, 24),
        (2, 32, 8, 12),
        (2, 48, 4, 6),
        (2, 64, 2, 3),
    ]
    probe_loss(outs).backward()
    assert all(
        p.grad is not None for p in model.parameters() if p.requires_grad
    )
    assert not any(p.requires_grad for p in model.relative_pos_enc)
    model.eval()
    with torch.no_grad():
        outs = model(image)
        assert_all_close(fold(model)(image), outs, 1e-5, 'folded')
        assert_all_close(torch.jit.script(model)(image), outs, 1e-5, 'script')
    with pytest.raises(UserError, match='GatedMixer; only models with'):
        DeployBackbone(model, 1)
    with pytest.raises(UserError, match='the blocks have GatedMixer'):
        observe_backbone(model, image[:1])


@pytest.mark.parametrize('changes', VARIANTS, ids=name_of)
def test_variants_train_and_fold(changes):
    """A step reaches every weight; the inference form is equal."""
    model = micro_model(**changes, with_cp=True)
    image = make_input(1, (2, 3, 64, 64))
    probe_loss(model(image)).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert len(model.state_dict()) != len(micro_model().state_dict())
    model.double().eval()
    with torch.no_grad():
        outs = model(image.double())
        folded = fold(model)(image.double())
    assert_all_close(folded, outs, 1e-11, 'folded')


def test_variants_lack_what_they_say():
    """Each computes as D-Mixer would with that part taken out."""
    x = make_input(2, (2, 16, 12, 12))
    bias = torch.zeros(1, 1, 144, 4)

    def mix(name):
        model = micro_model(token_mixer_cfg=dict(type=name)).eval()
        return model.network[0][0].token_mixer, bias

    with torch.no_grad():
        mixer, bias = mix('LocalMixer')
        full, _ = mix('DMixer')
        halves = full.local_unit(x[:, :8]), x[:, 8:]
        expected = full.enhance(torch.cat(halves, dim=1))
        assert_identical(mixer(x, bias), expected)
        mixer, _ = mix('UnenhancedMixer')
        halves = full.local_unit(x[:, :8]), full.global_unit(x[:, 8:], bias)
        assert_identical(mixer(x, bias), torch.cat(halves, dim=1))
    mixer, _ = mix('StaticMixer')
    assert type(mixer.local_unit) is variants.DepthwiseConv2d
    assert mixer.local_unit.kernel_size == (7, 7)
    mixer, _ = mix('UnrefinedMixer')
    assert type(mixer.global_unit.local_conv) is nn.Identity


def test_kernel_sizes_of_the_ffn():
    model = micro_model(ffn_cfg=dict(type='MSFFN', kernel_sizes=(3, 5)))
    multi_scale = model.network[0][0].mlp.dwconv
    assert [(c.kernel_size[0], c.in_channels) for c in multi_scale.proj] == [
        (3, 32),
        (5, 32),
    ]
    x = make_input(3, (1, 64, 9, 9))
    scripted = torch.jit.script(multi_scale)
    assert_all_close(scripted(x), multi_scale(x), 1e-6, 'script')
    with pytest.raises(UserError, match=r'MSFFN has kernels of \(3, 5\)'):
        observe_backbone(model, make_input(0, (1, 3, 64, 64)))


def test_an_unknown_mixer_is_named():
    with pytest.raises(KeyError, match='NoSuchMixer'):
        TransXNet(micro(), token_mixer_cfg=dict(type='NoSuchMixer'))

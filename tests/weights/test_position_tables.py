"""Position tables of another design size, through every way of loading."""

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmtransxnet import TransXNet
from mmtransxnet.weights import load_weights
from tests.support.models import MICRO, micro_model
from tests.support.published_files import classification_state, classifier

pytestmark = pytest.mark.distribution


def by_torch(model, path):
    model.load_state_dict(torch.load(path, weights_only=True))


def by_mmengine(model, path):
    load_checkpoint(model, path, strict=True)


def by_init_cfg(model, path):
    model.init_cfg = dict(type='Pretrained', checkpoint=path)
    model.init_weights()


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A backbone made for 64 pixels and its file."""
    model = micro_model().eval()
    path = str(tmp_path_factory.mktemp('tables') / '64.pth')
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize(
    'load', [by_torch, by_mmengine, load_weights, by_init_cfg]
)
@pytest.mark.parametrize('size', [48, 96, 101])
def test_equal_outputs_at_the_new_design_size(source, load, size):
    """The same resize when loading as when running; there, in two steps."""
    published, path = source
    model = TransXNet(MICRO, size).eval()
    load(model, path)
    assert model.relative_pos_enc[0].shape != (
        published.relative_pos_enc[0].shape
    )
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        for ours, theirs in zip(model(image), published(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_elsewhere_it_is_resized_twice(source):
    """What docs/weights.md says: at other sizes outputs differ."""
    published, path = source
    model = TransXNet(MICRO, 96).eval()
    load_weights(model, path)
    image = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        assert not torch.allclose(model(image)[0], published(image)[0])


def test_b_384_fills_every_design_size(tmp_path):
    """The published shapes at 384, into a classifier of 64 pixels."""
    state = classification_state(image_size=96)
    torch.save(dict(state_dict=state), tmp_path / 'b-384.pth.tar')
    model = classifier()
    load_checkpoint(model, str(tmp_path / 'b-384.pth.tar'), strict=True)
    backbone = TransXNet(MICRO, 96, out_indices=(3,))
    load_weights(backbone, str(tmp_path / 'b-384.pth.tar'))
    for name, value in backbone.state_dict().items():
        if name.startswith('relative_pos_enc'):
            assert torch.equal(value, state[name])
    image = torch.randn(1, 3, 64, 64)
    backbone.norm6.load_state_dict(model.backbone.norm6.state_dict())
    with torch.no_grad():
        ours = model.eval().backbone(image)[0]
        theirs = backbone.eval()(image)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_b_384_fills_b(tmp_path):
    """At B size: the tables of 384 pixels go into those of 224."""
    with torch.device('meta'):
        large, small = (TransXNet('b', size) for size in (384, 224))
    shapes = {n: v.shape for n, v in large.relative_pos_enc.named_parameters()}
    assert shapes['0'] == (1, 2, 96**2, 12**2)
    state = {
        f'relative_pos_enc.{n}': torch.randn(1, s[1], 64, 16)
        for n, s in shapes.items()
    }
    state['relative_pos_enc.3'] = torch.randn(shapes['3'])
    small = small.to_empty(device='cpu')
    small.load_state_dict(state, strict=False)
    expected = torch.nn.functional.interpolate(
        state['relative_pos_enc.3'], (49, 49), mode='bicubic'
    )
    assert torch.equal(small.relative_pos_enc[3], expected)


def test_the_users_dict_stays_as_it_is(source):
    published, _ = source
    state = published.state_dict()
    before = {name: value.shape for name, value in state.items()}
    TransXNet(MICRO, 96).load_state_dict(state)
    assert {name: value.shape for name, value in state.items()} == before


def test_half_precision_tables(source, tmp_path):
    published, _ = source
    half = {n: v.half() for n, v in published.state_dict().items()}
    model = TransXNet(MICRO, 96)
    model.load_state_dict(half)
    assert model.relative_pos_enc[0].dtype == torch.float32
    assert model.relative_pos_enc[0].isfinite().all()


def test_other_heads_are_another_architecture(source):
    _, path = source
    other = TransXNet({**MICRO, 'num_heads': [2, 2, 3, 4]}, 96)
    with pytest.raises(ValueError, match=r'relative_pos_enc\.0 \(1, 1'):
        by_torch(other, path)

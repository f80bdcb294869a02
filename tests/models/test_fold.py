"""The inference form computes what the trained network computes."""

import copy
import pickle
import shutil

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch._inductor.utils import run_and_get_code
from torch.nn.modules.batchnorm import _BatchNorm

from mmtransxnet import TransXNet
from mmtransxnet.models import fold
from tests.support.compare import assert_all_close, assert_identical
from tests.support.golden import (
    check_golden_forward,
    golden_arch,
    golden_cases,
    parse_case,
)
from tests.support.models import make_input, micro, micro_model

# The design size, larger, smaller, and one position in the last stage.
SHAPES = [(2, 3, 64, 64), (3, 3, 75, 130), (1, 3, 33, 40), (1, 3, 32, 32)]


def filled(**kwargs):
    return micro_model(**kwargs).eval()


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(drop_rate=0.2, drop_path_rate=0.5, with_cp=True),
        dict(conv_norm_cfg=dict(type='SyncBN')),
        dict(conv_norm_cfg=dict(type='BN', eps=0.1)),
        dict(act_cfg=dict(type='ReLU')),
        dict(norm_cfg=dict(type='BN')),
        dict(out_indices=(1, 2), frozen_stages=2),
    ],
    ids=['plain', 'drops', 'SyncBN', 'eps', 'ReLU', 'norms', 'outputs'],
)
def test_outputs_are_the_same(shape, kwargs):
    model = filled(**kwargs).double()
    image = make_input(1, shape).double()
    with torch.no_grad():
        expected, outs = model(image), fold(model)(image)
    assert_all_close(outs, expected, 1e-11, 'folded')


@pytest.mark.parametrize(
    'arch',
    [micro(embed_dims=[18, 30, 48, 66]), micro(sr_ratio=[1, 1, 1, 1])],
    ids=['uneven split', 'no reduction'],
)
def test_other_architectures(arch):
    arch.update(num_heads=[1, 1, 1, 1])
    model = micro_model(arch=arch).eval().double()
    image = make_input(1, SHAPES[1]).double()
    with torch.no_grad():
        assert_all_close(fold(model)(image), model(image), 1e-11, 'folded')


@pytest.mark.parametrize('case', golden_cases('forward', 'micro', 't'))
def test_published_numbers(case):
    arch, image_size, seed, shape = parse_case(case)
    model = micro_model(image_size, golden_arch(arch)).eval()
    with torch.no_grad():
        check_golden_forward(fold(model)(make_input(seed, shape)), case)


def test_what_folds_is_gone():
    model = filled()
    norms = sum(isinstance(m, _BatchNorm) for m in model.modules())
    folded = fold(model)
    left = [n for n, m in folded.named_modules() if isinstance(m, _BatchNorm)]
    # Of fc1's norm in each of the five blocks, the three parts before
    # convolutions that pad.
    assert len(left) == 3 * 5 < norms
    assert all('.mlp.branches.' in name for name in left)
    assert not any('layer_scale' in n for n, _ in folded.named_parameters())
    assert not any(p.requires_grad for p in folded.parameters())


def test_the_model_is_left_alone():
    model = filled()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    image = make_input(2, SHAPES[0])
    folded = fold(model)
    for param in folded.parameters():
        param.data.zero_()
    assert_identical(model.state_dict(), before)
    outs = model.train()(image)
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_folding_again_changes_nothing():
    once = fold(filled())
    image = make_input(3, SHAPES[0])
    twice = fold(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    with torch.no_grad():
        assert_all_close(twice(image), once(image), 0, 'twice')


def test_copies():
    folded = fold(filled())
    image = make_input(4, SHAPES[1])
    for twin in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        with torch.no_grad():
            assert_all_close(twin(image), folded(image), 0, 'copy')


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r'model\.eval\(\)'):
        fold(filled().train())
    inside = nn.Sequential(filled()).eval()
    inside[0].train()
    with pytest.raises(ValueError, match=r'model\.eval\(\)'):
        fold(inside)
    with pytest.raises(RuntimeError, match='inference'):
        fold(filled()).train()


def test_other_models_are_refused():
    with pytest.raises(ValueError, match='no TransXNet'):
        fold(nn.Conv2d(3, 3, 1).eval())
    # A GN depends on the input.
    norm_cfg = dict(type='GN', num_groups=1)
    model = TransXNet(micro(), conv_norm_cfg=norm_cfg).eval()
    with pytest.raises(ValueError, match='conv_norm_cfg'):
        fold(model)


def test_gradients_reach_the_image():
    """For saliency maps and the effective receptive field."""
    model = filled().double()
    grads = []
    for network in (model, fold(model)):
        image = make_input(5, SHAPES[1]).double().requires_grad_()
        network(image)[3].square().sum().backward()
        grads.append(image.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    model = filled()
    image = make_input(6, SHAPES[1])
    with torch.no_grad():
        expected = model(image)
        with torch.autocast('cpu', dtype=dtype):
            outs = fold(model)(image)
    tol = 0.1 if dtype == torch.bfloat16 else 0.02
    assert_all_close([o.float() for o in outs], expected, tol, str(dtype))


def test_compile_without_graph_breaks():
    torch._dynamo.reset()
    arch = micro(sr_ratio=[8, 1, 2, 1])
    model = micro_model(arch=arch, out_indices=(0, 1)).eval()
    folded = fold(model)
    compiled = torch.compile(folded, fullgraph=True, backend='aot_eager')
    image = make_input(7, SHAPES[1])
    with torch.no_grad():
        assert_all_close(compiled(image), model(image), 1e-5, 'compiled')
    torch._dynamo.reset()


def test_export():
    model = micro_model(out_indices=(0, 1)).eval()
    image = make_input(8, SHAPES[1])
    program = torch.export.export(fold(model), (image,)).module()
    with torch.no_grad():
        assert_all_close(program(image), model(image), 1e-5, 'exported')


@pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++')
def test_compile_with_frozen_weights():
    """The fastest form (docs/performance.md)."""
    torch._dynamo.reset()
    arch = micro(layers=[1, 1, 1, 1])
    model = micro_model(arch=arch, out_indices=(0,)).eval()
    image = make_input(2, (2, 3, 80, 64))
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        outs, (code, *_) = run_and_get_code(torch.compile(fold(model)), image)
        assert_all_close(outs, model(image), 1e-5, 'frozen')
    assert '_convolution_pointwise' in code
    torch._dynamo.reset()


def test_tables_stay_as_they_are():
    """Their four dimensions are no channels that could come last."""
    folded = fold(filled())
    assert all(table.is_contiguous() for table in folded.relative_pos_enc)

"""What people do to a model: compile, export, copy, cast, reorder."""

import copy
import io
import pickle

import pytest
import torch

from tests.support.compare import (
    assert_all_close,
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

# Not the design size, so that the resize of the tables takes part.
SHAPE = (2, 3, 80, 64)


def _filled(**kwargs):
    return micro_model(**kwargs).eval()


def _short(stages, **kwargs):
    """Only the first stages run, and one of two reduces nothing.

    Tracing costs seconds a block; two blocks have all there is to trace.
    """
    arch = micro(sr_ratio=[8, 1, 2, 1])
    indices = tuple(range(stages))
    return micro_model(arch=arch, out_indices=indices, **kwargs)


def _step(model, image):
    outs = model(image)
    probe_loss([out.float() for out in outs]).backward()
    return outs


# ---------------------------------------------------------------- autocast
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
def test_autocast(dtype, train):
    image = make_input(1, SHAPE)
    full = _filled().train(train)
    expected = [o.detach() for o in _step(full, image)]
    model = _filled().train(train)
    convs = []
    model.network[0][0].mlp.fc1[0].register_forward_hook(
        lambda _, args, out: convs.append(out.dtype)
    )
    with torch.autocast('cpu', dtype=dtype):
        outs = model(image)
    assert convs == [dtype], 'autocast did not reach the convolutions'
    # Eight bits of mantissa through some thirty layers, and a normalised
    # output: no more than a few percent of its largest value.
    tol = 0.1 if dtype == torch.bfloat16 else 0.02
    outs = [o.float() for o in outs]
    assert_all_close(outs, expected, tol, f'{dtype}')
    probe_loss(outs).backward()
    broken = [
        n
        for n, g in gradients(model).items()
        if g is None or not g.isfinite().all()
    ]
    assert not broken


# ----------------------------------------------------------------- compile
@pytest.fixture
def dynamo():
    """Compilations of other tests neither help nor hinder."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compile(model, backend='eager'):
    # Graph breaks are what is tested; the backends that need a C++ compiler
    # have no part in them.
    return torch.compile(model, fullgraph=True, backend=backend)


@pytest.mark.usefixtures('dynamo')
def test_compile_in_evaluation():
    model = _short(2).eval()
    image = make_input(2, SHAPE)
    with torch.no_grad():
        outs, expected = _compile(model)(image), model(image)
    assert_all_close(outs, expected, 1e-5, 'compiled')


@pytest.mark.usefixtures('dynamo')
@pytest.mark.parametrize(
    ('backend', 'stages', 'batch', 'kwargs'),
    [
        ('eager', 1, 1, dict(drop_path_rate=0.5)),
        # This one traces the backward pass too, where recomputation is.
        ('aot_eager', 1, 2, {}),
        ('aot_eager', 1, 2, dict(with_cp=True)),
    ],
    ids=['one image', 'two images', 'with_cp'],
)
def test_compile_in_training(backend, stages, batch, kwargs):
    eager, model = (_short(stages, **kwargs).train() for _ in range(2))
    compiled = _compile(model, backend)
    image = make_input(3, (batch, *SHAPE[1:]))
    for step in range(2):
        torch.manual_seed(step)
        expected = _step(eager, image)
        torch.manual_seed(step)
        outs = _step(compiled, image)
        assert_all_close(outs, expected, 1e-5, f'compiled, step {step}')
    assert_same_gradients(gradients(model), gradients(eager), 1e-3, 1e-4)
    assert_same_buffers(buffers(model), buffers(eager), 1e-5)


# ------------------------------------------------------------------ export
@pytest.mark.parametrize('dynamic', [False, True], ids=['fixed', 'batch'])
def test_export(dynamic):
    """The exported program computes the same, for any batch if asked to."""
    # The whole network once; what a free batch adds is the same everywhere.
    model = (_short(2) if dynamic else _filled()).eval()
    batch = torch.export.Dim('batch', min=1, max=64)
    program = torch.export.export(
        model,
        (make_input(5, SHAPE),),
        dynamic_shapes=({0: batch},) if dynamic else None,
        strict=False,
    ).module()
    with torch.no_grad():
        for size in (1, 2, 5) if dynamic else SHAPE[:1]:
            image = make_input(6, (size, *SHAPE[1:]))
            assert_all_close(
                program(image), model(image), 1e-5, f'batch {size}'
            )


# -------------------------------------------------------------------- copy
def _deepcopy(model):
    return copy.deepcopy(model)


def _pickle(model):
    return pickle.loads(pickle.dumps(model))


def _torch_save(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize('used', [False, True], ids=['new', 'used'])
@pytest.mark.parametrize('clone', [_deepcopy, _pickle, _torch_save])
def test_copies_compute_the_same_and_share_nothing(clone, used):
    model = _filled(frozen_stages=1, drop_path_rate=0.1)
    image = make_input(8, SHAPE)
    if used:
        # Whatever a call leaves behind must be copied or forgotten.
        _step(model.train(), image)
        model.eval()
    twin = clone(model)
    with torch.no_grad():
        expected = model(image)
        assert_all_close(twin(image), expected, 0, 'copy')
        for param in twin.parameters():
            param.zero_()
        assert_all_close(model(image), expected, 0, 'original')
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        n for n, p in twin.named_parameters() if p.requires_grad
    }
    twin.train()
    assert not twin.patch_embed.training


# ------------------------------------------------------------ memory format
@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
def test_channels_last(train):
    image = make_input(9, SHAPE)
    plain, model = _filled().train(train), _filled().train(train)
    expected = _step(plain, image)
    model.to(memory_format=torch.channels_last)
    outs = _step(model, image.to(memory_format=torch.channels_last))
    assert_all_close(outs, expected, 1e-4, 'channels_last')
    assert_same_gradients(gradients(model), gradients(plain), 1e-3, 1e-4)
    assert_same_buffers(buffers(model), buffers(plain), 1e-5)


def test_strided_views_are_inputs_too():
    model = _filled()
    base = make_input(10, (1, 6, 160, 64))
    view = base[:, ::2, ::2]
    with torch.no_grad():
        expected = model(view.contiguous())
        assert_all_close(model(view), expected, 1e-5, 'view')


def test_input_is_left_alone():
    image = make_input(11, SHAPE)
    before = image.clone()
    _step(_filled(act_cfg=dict(type='ReLU')).train(), image)
    assert torch.equal(image, before)

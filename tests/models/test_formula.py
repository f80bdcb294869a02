"""TransXNet against the plain reference, where no number is recorded.

In float64: what remains between two ways to write one formula is rounding,
and a wrong detail cannot hide in a tolerance.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmtransxnet import TransXNet
from mmtransxnet.models.reference import ReferenceTransXNet, lenient
from tests.support.compare import (
    assert_all_close,
    assert_close,
    assert_same_buffers,
    assert_same_gradients,
)
from tests.support.models import (
    buffers,
    fill_by_name,
    gradients,
    make_input,
    micro,
    micro_model,
    probe_loss,
)

TOL = 1e-9


def _pair(image_size=224, **changes):
    """The model and its reference with equal weights, in float64."""
    arch = micro(**changes)
    models = TransXNet(arch, image_size), ReferenceTransXNet(arch, image_size)
    return tuple(fill_by_name(model).double() for model in models)


def _image(seed, *shape):
    return make_input(seed, shape).double()


SHAPES = [
    (1, 3, 32, 32),
    (3, 3, 32, 75),
    (1, 3, 33, 64),
    (2, 3, 61, 47),
    (1, 3, 130, 35),
    (1, 3, 191, 255),
    (1, 3, 224, 223),
]


@pytest.fixture(scope='module')
def pair():
    """For evaluation, which changes nothing."""
    return tuple(model.eval() for model in _pair())


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_eval_outputs(pair, shape):
    model, reference = pair
    image = _image(sum(shape), *shape)
    with torch.no_grad():
        outs, expected = model(image), reference(image)
    assert_all_close(outs, expected, TOL, f'{shape}')


@pytest.mark.parametrize(
    ('seed', 'shape'),
    [
        (11, (2, 3, 224, 224)),
        (12, (2, 3, 97, 61)),
        (13, (2, 3, 64, 96)),
        (14, (5, 3, 32, 33)),
        (15, (2, 3, 32, 32)),
    ],
)
def test_training_step(seed, shape):
    """Outputs, gradients and running statistics in training mode."""
    steps = []
    for model in _pair():
        image = _image(seed, *shape).requires_grad_()
        outs = model.train()(image)
        probe_loss(outs).backward()
        steps.append((outs, image.grad, gradients(model), buffers(model)))
    (outs, image, grads, state), (outs0, image0, grads0, state0) = steps
    assert_all_close(outs, outs0, TOL, 'outputs')
    assert_same_buffers(state, state0, TOL)
    # Batch statistics over few values magnify rounding.
    assert_close(image, image0, 1e-6, 'image gradient', floor=1e-9)
    assert_same_gradients(grads, grads0, 1e-6)


def test_gradients_in_eval_mode():
    """As in the analysis of receptive fields: eval, but differentiated."""
    found = []
    for model in _pair():
        image = _image(21, 1, 3, 75, 60).requires_grad_()
        outs = model.eval()(image)
        probe_loss(outs).backward()
        found.append((outs, image.grad, gradients(model)))
    (outs, image, grads), (outs0, image0, grads0) = found
    assert_all_close(outs, outs0, TOL, 'outputs')
    assert_close(image, image0, TOL, 'image gradient')
    assert_same_gradients(grads, grads0, TOL, floor=1e-9)


@pytest.mark.parametrize(
    'changes',
    [
        dict(layers=[2, 1, 1, 3]),
        dict(embed_dims=[8, 24, 42, 72], mlp_ratios=[1, 2, 3, 5]),
        dict(kernel_size=[3, 5, 9, 1]),
        dict(sr_ratio=[4, 2, 1, 1]),
        dict(num_groups=[1, 5, 2, 3]),
    ],
    ids=lambda c: next(iter(c)),
)
def test_other_architectures(changes):
    model, reference = _pair(image_size=64, **changes)
    image = _image(31, 2, 3, 64, 50)
    with torch.no_grad():
        outs, expected = model.eval()(image), reference.eval()(image)
    assert_all_close(outs, expected, TOL, f'{changes}')


@pytest.mark.parametrize('image_size', [32, 50, 129, 384])
def test_other_design_sizes(image_size):
    model, reference = _pair(image_size)
    for i, table in enumerate(model.relative_pos_enc):
        expected = reference.relative_pos_enc[i].shape
        assert table.shape == expected, f'table {i}'
    image = _image(41, 1, 3, 80, 48)
    with torch.no_grad():
        outs, expected = model.eval()(image), reference.eval()(image)
    assert_all_close(outs, expected, TOL, f'image size {image_size}')


# ------------------------------------------------------------ batch of one
@pytest.mark.parametrize('shape', [(64, 64), (97, 61), (32, 32), (32, 64)])
def test_training_step_with_one_image(shape):
    """A norm that sees one value per channel behaves as in evaluation."""
    model, reference = _pair()
    lenient(reference)
    found = []
    for net in (model, reference):
        image = _image(51, 1, 3, *shape).requires_grad_()
        outs = net.train()(image)
        probe_loss(outs).backward()
        found.append((outs, image.grad, gradients(net), buffers(net)))
    (outs, image, grads, state), (outs0, image0, grads0, state0) = found
    assert_all_close(outs, outs0, TOL, f'{shape}')
    assert_same_buffers(state, state0, TOL)
    assert_close(image, image0, 1e-6, 'image gradient', floor=1e-9)
    assert_same_gradients(grads, grads0, 1e-6)


# ----------------------------------------------------- the position tables
class _Resizes(TorchDispatchMode):
    """Counts bicubic resizes, whoever calls them."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if 'upsample_bicubic2d' in func.name():
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
def test_tables_are_resized_once_per_stage(train):
    model = TransXNet(micro(layers=[2, 1, 2, 2])).train(train)
    image = make_input(1, (2, 3, 64, 50))
    model(image)  # finds out the weights of the resize, once for a size
    with _Resizes() as resizes:
        model(image)
    assert resizes.count <= 4, f'{resizes.count} resizes for 4 stages'


def test_tables_are_not_resized_at_the_design_size():
    model = TransXNet(micro(), image_size=64).eval()
    with _Resizes() as resizes:
        model(make_input(1, (1, 3, 64, 64)))
    assert resizes.count == 0


def test_no_table_survives_a_change_of_weights():
    """Whatever is remembered between calls must follow the parameters."""
    model, reference = _pair(64)
    image = _image(61, 1, 3, 96, 50)
    for factor in (1.0, -2.0, 3.0):
        for net in (model.eval(), reference.eval()):
            with torch.no_grad():
                for table in net.relative_pos_enc:
                    table.mul_(factor)
        with torch.no_grad():
            outs, expected = model(image), reference(image)
        assert_all_close(outs, expected, TOL, f'tables times {factor}')


def test_tables_learn_after_inference():
    """Inference at a size must not leave tensors that cut the gradient."""
    model = micro_model().eval()
    image = make_input(71, (2, 3, 96, 50))
    with torch.inference_mode():
        model(image)
    with torch.no_grad():
        model(image)
    model.train()
    for step in range(2):
        model.zero_grad()
        probe_loss(model(image)).backward()
        for i, table in enumerate(model.relative_pos_enc):
            assert table.grad is not None, f'step {step}, table {i}'
            assert table.grad.abs().max() > 0, f'step {step}, table {i}'

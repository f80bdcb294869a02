"""TorchScript compiles the formula."""

import io

import pytest
import torch

from tests.support.compare import assert_all_close, assert_same_gradients
from tests.support.models import make_input, micro_model, probe_loss

# Odd sizes, so that the tables are resized and sizes are rounded up.
SHAPE = (2, 3, 75, 90)


@pytest.fixture(scope='module')
def model():
    return micro_model(drop_path_rate=0.1).eval()


@pytest.fixture(scope='module')
def scripted(model):
    return torch.jit.script(model)


@pytest.mark.parametrize('shape', [SHAPE, (1, 3, 64, 64)], ids=str)
def test_outputs(model, scripted, shape):
    image = make_input(0, shape)
    with torch.no_grad():
        assert_all_close(scripted(image), model(image), 1e-5, 'scripted')


def test_gradients(model, scripted):
    """The modules are shared: both write the same gradients."""
    found = []
    for form in (model, scripted):
        model.zero_grad()
        probe_loss(form(make_input(1, SHAPE))).backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters()})
    assert_same_gradients(*found, 1e-4)


def test_saved_and_loaded(model, scripted):
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    image = make_input(2, SHAPE)
    with torch.no_grad():
        outs = torch.jit.load(file)(image)
        assert_all_close(outs, model(image), 1e-5, 'loaded')


def test_small_images_are_refused(scripted):
    with pytest.raises(torch.jit.Error, match='at least 32 x 32 pixels'):
        scripted(torch.zeros(1, 3, 31, 64))


def test_training():
    """Running statistics move, and only those of the stages that run."""
    eager, model = (micro_model(out_indices=(0, 2)).train() for _ in range(2))
    scripted = torch.jit.script(model)
    image = make_input(3, (2, 3, 64, 64))
    assert_all_close(scripted(image), eager(image), 1e-5, 'scripted')
    for (name, value), expected in zip(
        model.named_buffers(), eager.buffers(), strict=True
    ):
        torch.testing.assert_close(value, expected, msg=name)

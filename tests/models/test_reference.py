"""The reference itself must reproduce the published numbers and names."""

import pytest
import torch

from mmtransxnet.models.reference import ReferenceTransXNet
from tests.support.compare import assert_close
from tests.support.golden import (
    check_golden_backward,
    check_golden_forward,
    dense_keys,
    golden,
    golden_arch,
    golden_cases,
    keys_sha256,
    official_keys,
    parse_case,
)
from tests.support.models import fill_by_name, make_input


def _reference(case, num_classes=None):
    arch, image_size, _, _ = parse_case(case)
    model = ReferenceTransXNet(golden_arch(arch), image_size, num_classes)
    return fill_by_name(model).eval()


@pytest.mark.usefixtures('quick_init')
@pytest.mark.parametrize('size', ['t', 's', 'b'])
def test_reference_has_the_published_keys(size):
    state = ReferenceTransXNet(size, num_classes=1000).state_dict()
    facts = official_keys()[size]
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert len(shapes) == facts['classification_count']
    assert keys_sha256(shapes) == facts['classification_sha256']


@pytest.mark.usefixtures('quick_init')
def test_reference_has_the_published_dense_keys():
    state = ReferenceTransXNet('t').state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == dense_keys()


# One published size shows the arch table; the rest is in the keys.
@pytest.mark.parametrize(
    'case', [*golden_cases('forward', 'micro'), 't|224|3|1x3x97x131']
)
def test_reference_forward_is_golden(case):
    _, _, seed, shape = parse_case(case)
    with torch.no_grad():
        outs = _reference(case)(make_input(seed, shape))
    check_golden_forward(outs, case)


@pytest.mark.parametrize('case', golden_cases('forward', 'micro'))
def test_reference_logits_are_golden(case):
    _, _, seed, shape = parse_case(case)
    with torch.no_grad():
        logits = _reference(case, num_classes=1000)(make_input(seed, shape))
    assert_close(logits, golden('forward')[case]['logits'], 1e-4, case)


@pytest.mark.parametrize('case', golden_cases('backward', 'micro'))
def test_reference_backward_is_golden(case):
    check_golden_backward(_reference(case), case, tol=1e-3)

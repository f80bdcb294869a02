"""TransXNet against the recorded numbers of the published code."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from mmtransxnet import TransXNet
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


def _shapes(model):
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def _filled(case, **kwargs):
    arch, image_size, _, _ = parse_case(case)
    model = TransXNet(golden_arch(arch), image_size, **kwargs)
    return fill_by_name(model).eval()


@pytest.fixture(scope='module')
def by_size():
    """Filled models by golden arch and image size, each built once."""
    models = {}

    def get(case):
        key = parse_case(case)[:2]
        if key not in models:
            models[key] = _filled(case)
        return models[key]

    return get


class _Classifier(nn.Module):
    """What the published classification model is, around a backbone."""

    def __init__(self, channels):
        super().__init__()
        self.classifier = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 1000, 1),
        )

    def forward(self, x):
        return self.classifier(x).flatten(1)


@pytest.mark.usefixtures('quick_init')
def test_dense_keys_and_shapes_of_t_are_the_published_ones():
    shapes = _shapes(TransXNet('t'))
    expected = dense_keys()
    assert shapes.keys() == expected.keys()
    wrong = {k: shapes[k] for k in shapes if shapes[k] != expected[k]}
    assert not wrong


@pytest.mark.usefixtures('quick_init')
@pytest.mark.parametrize(
    ('names', 'millions'),
    [
        (('t', 'tiny'), 12.83),
        (('s', 'small'), 26.86),
        (('b', 'base'), 48.01),
    ],
    ids='tsb',
)
def test_keys_shapes_and_number_of_parameters(names, millions):
    facts = official_keys()[names[0]]
    for name in names:
        model = TransXNet(name)
        shapes = _shapes(model)
        for key in facts['only_in_dense']:
            del shapes[key]
        head = _Classifier(model.out_channels[-1])
        shapes.update(_shapes(head))
        assert len(shapes) == facts['classification_count'], name
        assert keys_sha256(shapes) == facts['classification_sha256'], name
        count = sum(p.numel() for p in model.parameters())
        count += sum(p.numel() for p in head.parameters())
        count -= 2 * sum(model.out_channels)
        assert round(count / 1e6, 2) == millions, name


@pytest.mark.usefixtures('quick_init')
def test_number_of_parameters_is_the_sum_of_the_official_shapes():
    expected = sum(
        torch.Size(shape).numel()
        for key, shape in dense_keys().items()
        if not key.endswith(('_mean', '_var', '_tracked'))
    )
    model = TransXNet('t')
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize('case', golden_cases('forward'))
def test_forward_is_golden(by_size, case):
    """The four outputs, and the logits from the raw last stage."""
    model = by_size(case)
    _, _, seed, shape = parse_case(case)
    # The logits come from the same pass: what enters norm6 is the raw
    # last stage.
    raw = []
    hook = model.norm6.register_forward_pre_hook(
        lambda _, args: raw.append(args[0])
    )
    with torch.no_grad():
        outs = model(make_input(seed, shape))
        hook.remove()
        head = fill_by_name(_Classifier(model.out_channels[-1]))
        logits = head(raw[0])
    check_golden_forward(outs, case)
    expected = golden('forward')[case]['logits']
    assert_close(logits, expected, 1e-4, f'{case}, logits')


@pytest.mark.parametrize('case', golden_cases('forward', 'micro')[:1])
def test_classifier_takes_the_place_of_the_last_norm(case):
    model = _filled(case, out_indices=(3,))
    _, _, seed, shape = parse_case(case)
    model.norm6 = nn.Identity()
    head = _Classifier(model.out_channels[-1])
    whole = nn.Sequential(OrderedDict(backbone=model, head=head))
    fill_by_name(head)
    with torch.no_grad():
        (raw,) = model(make_input(seed, shape))
        logits = head(raw)
    assert not any('norm6' in key for key in whole.state_dict())
    assert_close(logits, golden('forward')[case]['logits'], 1e-4, case)


@pytest.mark.parametrize('case', golden_cases('backward'))
def test_backward_is_golden(case):
    tol = 1e-3 if case.startswith('micro') else 5e-2
    check_golden_backward(_filled(case), case, tol)

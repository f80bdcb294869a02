"""Focal losses against equation 5 of the paper, row by row."""

import math

import pytest
import torch
from mmcv.ops import (
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
    sigmoid_focal_loss,
    softmax_focal_loss,
)

# Every class, none (3 is the background of three classes), ignored.
TARGET = [0, 2, 3, 1, -1, 2]


def logits(device, dtype=torch.float64):
    values = torch.randn(len(TARGET), 3, dtype=torch.float64) * 2
    return values.to(device, dtype), torch.tensor(TARGET, device=device)


def plain_sigmoid(values, target, gamma, alpha, weight=None):
    loss = torch.zeros(len(values), values.size(1), dtype=torch.float64)
    for n, row in enumerate(values.tolist()):
        for c, x in enumerate(row):
            p = 1 / (1 + math.exp(-x))
            t = int(target[n])
            pt, at = (p, alpha) if t == c else (1 - p, 1 - alpha)
            loss[n, c] = -at * (1 - pt) ** gamma * math.log(pt)
            if weight is not None and 0 <= t < len(weight):
                loss[n, c] *= float(weight[t])
    return loss


def plain_softmax(values, target, gamma, alpha, weight=None):
    loss = torch.zeros(len(values), dtype=torch.float64)
    for n, row in enumerate(values.tolist()):
        t = int(target[n])
        if t >= 0:
            p = math.exp(row[t]) / sum(math.exp(x) for x in row)
            loss[n] = -alpha * (1 - p) ** gamma * math.log(p)
            if weight is not None:
                loss[n] *= float(weight[t])
    return loss


def reduced(loss, reduction):
    if reduction == 'none':
        return loss
    return loss.sum() / (len(loss) if reduction == 'mean' else 1)


CASES = {
    'sigmoid': (sigmoid_focal_loss, plain_sigmoid, 3),
    'softmax': (softmax_focal_loss, plain_softmax, 2),
}


@pytest.fixture(params=sorted(CASES))
def case(request):
    """The operator, its formula, and the largest label to use."""
    return CASES[request.param]


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.7, 0.3)])
def test_loss(device, case, gamma, alpha, reduction, weighted):
    operator, formula, largest = case
    values, target = logits(device)
    target = target.clamp(max=largest)
    weight = torch.tensor([0.5, 2.0, 3.0]).to(values) if weighted else None
    loss = operator(values, target, gamma, alpha, weight, reduction)
    expected = formula(values, target, gamma, alpha, weight)
    torch.testing.assert_close(loss.cpu(), reduced(expected, reduction))


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('gamma', [2.0, 0.7, 0.0])
def test_gradient(device, case, gamma, reduction, weighted):
    operator, _, largest = case
    values, target = logits(device)
    target = target.clamp(max=largest)
    weight = torch.tensor([0.5, 2.0, 3.0]).to(values) if weighted else None
    assert torch.autograd.gradcheck(
        lambda x: operator(x, target, gamma, 0.3, weight, reduction),
        values.requires_grad_(),
    )


def test_gradient_of_every_sigmoid(device):
    """Detectors take the loss of every entry and weight it themselves."""
    values, target = logits(device)
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none'),
        values.requires_grad_(),
    )


@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)],
)
def test_dtypes(device, case, dtype, tolerance):
    operator, formula, largest = case
    values, target = logits(device, dtype)
    target = target.clamp(max=largest)
    loss = operator(values.requires_grad_(), target, 2.0, 0.25, None, 'sum')
    loss.backward()
    exact = values.detach().double().requires_grad_()
    expected = operator(exact, target, 2.0, 0.25, None, 'sum')
    expected.backward()
    assert loss.dtype == dtype
    assert values.grad.dtype == dtype
    plain = formula(values.detach(), target, 2.0, 0.25).sum()
    close = dict(atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(loss.detach().cpu().double(), plain, **close)
    torch.testing.assert_close(values.grad.double(), exact.grad, **close)


@pytest.mark.parametrize('gamma', [2.0, 1.0, 0.5, 0.0])
def test_certain_predictions(device, case, gamma):
    """Logits of +-200 saturate float32: finite, and zero where right."""
    operator, _, _ = case
    values = torch.tensor([[200.0, -200], [200, -200]], device=device)
    target = torch.tensor([0, 1], device=device)
    loss = operator(values.requires_grad_(), target, gamma, 0.5, None, 'sum')
    loss.backward()
    assert loss > 10
    assert values.grad.isfinite().all()
    assert not values.grad[0].any()


def test_modules(device):
    values, target = logits(device)
    target = target.clamp(max=2)
    weight = torch.tensor([0.5, 2.0, 3.0]).to(values)
    for module, formula in (
        (SigmoidFocalLoss, plain_sigmoid),
        (SoftmaxFocalLoss, plain_softmax),
    ):
        loss = module(1.5, 0.4, weight=weight)(values, target)
        expected = formula(values, target, 1.5, 0.4, weight)
        torch.testing.assert_close(loss.cpu(), reduced(expected, 'mean'))


def test_labels_out_of_range(device, case):
    operator, _, largest = case
    values, target = logits(device)
    with pytest.raises(RuntimeError, match=f'at most {largest}'):
        operator(values, target.clamp(min=largest + 1))


def test_empty(device, case):
    operator, _, _ = case
    values, target = logits(device)
    values = values[:0].requires_grad_()
    loss = operator(values, target[:0], 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss == 0
    assert values.grad.shape == (0, 3)

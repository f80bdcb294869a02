"""Focal loss of sigmoid and softmax: Lin et al., ICCV 2017, equation 5."""

import torch
from torch import Tensor

from .common import upcast

# Smallest normal float32: mmcv's lower bound in front of every logarithm.
_TINY = torch.finfo(torch.float32).tiny


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of every class as a binary problem.

    Args:
        input (Tensor): Logits, shape (N, C).
        target (Tensor): Class of each row, int64, shape (N,). Rows with a
            class that is not among the C ones are negative for all.
        weight (Tensor): Weight of each row's target class, shape (C,), or
            empty for none. A row without a class among the C has weight 1.
        output (Tensor): Output, shape (N, C).
        gamma (float): Focusing parameter.
        alpha (float): Weight of positives; negatives have ``1 - alpha``.

    Raises:
        RuntimeError: If a target is larger than C.
    """
    _check_target(target, input.size(1))
    positive, p_true, p_false = _sigmoid_terms(input, target)
    loss = -p_false.pow(gamma) * p_true.clamp(min=_TINY).log()
    loss = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    output.copy_(_weighted(loss, target, weight))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of the loss by its logits.

    Args:
        input (Tensor): As in the forward function, like the following.
        target (Tensor): Shape (N,).
        weight (Tensor): Shape (C,) or empty.
        grad_input (Tensor): Output, shape (N, C).
        gamma (float): Focusing parameter.
        alpha (float): Weight of positives.
    """
    positive, p_true, p_false = _sigmoid_terms(input, target)
    grad = gamma * p_true * p_true.clamp(min=_TINY).log() - p_false
    grad *= p_false.pow(gamma)
    # d p_true / d logit is p (1 - p) for positives and minus that otherwise.
    grad = torch.where(positive, alpha * grad, (alpha - 1) * grad)
    grad_input.copy_(_weighted(grad, target, weight))


def _sigmoid_terms(
    input: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which entries are positive and p of the true and false side."""
    classes = torch.arange(input.size(1), device=input.device)
    positive = target[:, None] == classes
    p = upcast(input).sigmoid()
    return positive, torch.where(positive, p, 1 - p), p.where(~positive, 1 - p)


@torch.no_grad()
def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of the target class.

    Args:
        input (Tensor): Probabilities (the softmax is mmcv's), shape (N, C).
        target (Tensor): Class of each row, int64, shape (N,). Rows with a
            negative class are ignored: their loss is 0.
        weight (Tensor): Weight of each class, shape (C,), or empty for none.
        output (Tensor): Output, shape (N,).
        gamma (float): Focusing parameter.
        alpha (float): Factor of the loss.

    Raises:
        RuntimeError: If a target is not smaller than C.
    """
    # mmcv lets C pass here, and reads beyond the row.
    _check_target(target, input.size(1) - 1)
    p = _target_probability(input, target)
    loss = -alpha * (1 - p).pow(gamma) * p.clamp(min=_TINY).log()
    output.copy_(_weighted(loss.where(target >= 0, 0), target, weight))


@torch.no_grad()
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of the loss by the logits before the softmax.

    Args:
        input (Tensor): As in the forward function, like the following.
        target (Tensor): Shape (N,).
        weight (Tensor): Shape (C,) or empty.
        buff (Tensor): Output, derivative by the logarithm of the target's
            probability, shape (N,).
        grad_input (Tensor): Output, shape (N, C).
        gamma (float): Focusing parameter.
        alpha (float): Factor of the loss.
    """
    p = _target_probability(input, target)
    # Bounded from below: with gamma < 1 the power has a pole at p = 1, where
    # the logarithm is 0 and so is the product.
    power = (1 - p).clamp(min=_TINY).pow(gamma - 1)
    grad = gamma * power * p * p.clamp(min=_TINY).log() - (1 - p).pow(gamma)
    grad = _weighted(alpha * grad.where(target >= 0, 0), target, weight)
    buff.copy_(grad)
    classes = torch.arange(input.size(1), device=input.device)
    one_hot = (target[:, None] == classes).to(grad)
    grad_input.copy_(grad[:, None] * (one_hot - upcast(input)))


def _target_probability(input: Tensor, target: Tensor) -> Tensor:
    """Return the target's entry of each row; arbitrary if it is ignored."""
    index = target.clamp(min=0)[:, None]
    return upcast(input).gather(1, index)[:, 0]


def _weighted(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Multiply each row of ``value`` by the weight of its target class."""
    if weight.numel() == 0:
        return value
    inside = (target >= 0) & (target < len(weight))
    factor = upcast(weight)[target.where(inside, 0)].where(inside, 1)
    return value * factor.view(-1, *[1] * (value.dim() - 1))


def _check_target(target: Tensor, largest: int) -> None:
    """Raise if a target is above ``largest``; mmcv checks it as well."""
    if target.numel() and int(target.max()) > largest:
        raise RuntimeError(
            f'target label should be at most {largest}, '
            f'but one is {int(target.max())}'
        )

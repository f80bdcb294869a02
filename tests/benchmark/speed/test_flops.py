"""FLOPs of calls: what torch does not count, or counts wrongly on CPUs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtransxnet.benchmark.speed.flops import count_flops
from mmtransxnet.kernels.attention import attention
from mmtransxnet.kernels.channels_last import GELU
from mmtransxnet.kernels.fused_convolution import conv_add
from mmtransxnet.models.inference_form import ConvAct


@pytest.mark.parametrize(
    ('conv', 'positions'),
    [
        (nn.Conv2d(8, 16, 3, padding=1), 10 * 12),
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), 4 * 5),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), 10 * 12),
    ],
)
def test_gradients_take_twice_the_forward_pass(conv, positions):
    image = torch.zeros(2, 8, 10, 12, requires_grad=True)
    forward = 2 * 2 * positions * conv.weight.numel()
    assert count_flops(lambda: conv(image)) == forward
    assert count_flops(lambda: conv(image).sum().backward()) == 3 * forward
    # An image needs no gradient.
    pixels = image.detach()
    assert count_flops(lambda: conv(pixels).sum().backward()) == 2 * forward


@pytest.mark.parametrize('rows', [None, 10, 5])
def test_attention_counts_as_much_in_any_kernel(rows):
    q = torch.zeros(2, 3, 10, 4, requires_grad=True)
    k = torch.zeros(2, 3, 7, 4, requires_grad=True)
    if rows is None:  # PyTorch's own

        def attend():
            return F.scaled_dot_product_attention(q, k, k)
    else:
        table = torch.zeros(1, 3, rows, 7, requires_grad=True)

        def attend():
            return attention(q, k, k, table)

    forward = 2 * 2 * 2 * 3 * 10 * 7 * 4
    assert count_flops(attend) == forward
    # The scores again, and two gradients of each product.
    assert count_flops(lambda: attend().sum().backward()) == 3.5 * forward


def test_parameters_as_arguments_in_inference_mode():
    class Added(nn.Module):
        def forward(self, image, weight):
            return image @ weight

    weight = nn.Parameter(torch.zeros(3, 5))
    with torch.inference_mode():
        count = count_flops(lambda: Added()(torch.zeros(2, 3), weight))
    assert count == 2 * 2 * 3 * 5


def test_fused_convolutions_count_as_convolutions():
    conv = nn.Conv2d(8, 6, 3, padding=1, groups=2).requires_grad_(False)
    x, other = torch.randn(2, 8, 5, 7), torch.randn(2, 6, 5, 7)
    expected = count_flops(lambda: conv(x))
    assert expected == 2 * 2 * 6 * 4 * 9 * 5 * 7
    assert count_flops(lambda: ConvAct(conv, GELU())(x)) == expected
    assert count_flops(lambda: conv_add(conv, x, other)) == expected

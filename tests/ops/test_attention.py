"""Multi-scale deformable attention against a plain loop."""

import math

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

SHAPES = [(6, 4), (3, 2)]
BATCH, HEADS, CHANNELS, QUERIES, POINTS = 2, 2, 3, 4, 2


def operands(device, dtype=torch.float64):
    shapes = torch.tensor(SHAPES, device=device)
    sizes = shapes.prod(1)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
    value = torch.randn(BATCH, int(sizes.sum()), HEADS, CHANNELS).double()
    # A part of the points lies outside.
    places = torch.rand(BATCH, QUERIES, HEADS, len(SHAPES), POINTS, 2).double()
    places = places * 1.4 - 0.2
    weights = torch.rand(places.shape[:-1]).double()
    value, places, weights = (
        t.to(device, dtype) for t in (value, places, weights)
    )
    return value, shapes, starts, places, weights


def attend(value, shapes, starts, places, weights, step=64):
    return MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, places, weights, step
    )


def plain(value, places, weights):
    output = torch.zeros(BATCH, QUERIES, HEADS, CHANNELS).double()
    for b, q, m, level, p in torch.cartesian_prod(
        *(torch.arange(n) for n in weights.shape)
    ).tolist():
        h, w = SHAPES[level]
        start = sum(a * b for a, b in SHAPES[:level])
        x = float(places[b, q, m, level, p, 0]) * w - 0.5
        y = float(places[b, q, m, level, p, 1]) * h - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < h and 0 <= column < w:
                    factor = (1 - abs(y - row)) * (1 - abs(x - column))
                    output[b, q, m] += (
                        factor
                        * weights[b, q, m, level, p]
                        * value[b, start + row * w + column, m]
                    )
    return output.flatten(2)


def test_forward(device):
    value, shapes, starts, places, weights = operands(device)
    output = attend(value, shapes, starts, places, weights)
    expected = plain(value.cpu(), places.cpu(), weights.cpu())
    torch.testing.assert_close(output.cpu(), expected)
    torch.testing.assert_close(
        output,
        multi_scale_deformable_attn_pytorch(value, shapes, places, weights),
    )


def test_gradient(device):
    value, shapes, starts, places, weights = operands(device)
    assert torch.autograd.gradcheck(
        lambda v, p, w: attend(v, shapes, starts, p, w),
        [t.requires_grad_() for t in (value, places, weights)],
        nondet_tol=1e-10,
        fast_mode=True,
    )


@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)],
)
def test_dtypes(device, dtype, tolerance):
    low = operands(device, dtype)
    results = []
    for tensors in (low, [t.double() for t in low]):
        value, _, _, places, weights = tensors
        leaves = [t.requires_grad_() for t in (value, places, weights)]
        output = attend(value, low[1], low[2], places, weights)
        output.sum().backward()
        results.append([output, *(t.grad for t in leaves)])
    close = dict(atol=tolerance, rtol=tolerance)
    for result, exact in zip(*results, strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), exact, **close)


def test_levels_in_another_order(device):
    """The start index says where a level is, not its number."""
    value, shapes, starts, places, weights = operands(device)
    first = SHAPES[0][0] * SHAPES[0][1]
    moved = torch.cat([value[:, first:], value[:, :first]], 1)
    other = starts.new_tensor([value.size(1) - first, 0])
    torch.testing.assert_close(
        attend(moved, shapes, other, places, weights),
        attend(value, shapes, starts, places, weights),
    )


def test_step_has_to_divide_the_batch(device):
    with pytest.raises(RuntimeError, match=r'batch\(3\) must divide'):
        attend(
            *(
                t.repeat(3, *[1] * (t.dim() - 1))[:3] if t.dim() > 3 else t
                for t in operands(device)
            ),
            step=2,
        )


def test_module(device):
    """mmcv's module, which on the CPU takes mmcv's own formula."""
    module = MultiScaleDeformableAttention(
        8, 2, len(SHAPES), POINTS, batch_first=True
    ).to(device)
    _, shapes, starts, _, _ = operands(device)
    count = int(shapes.prod(1).sum())
    output = module(
        query=torch.rand(BATCH, QUERIES, 8, device=device),
        value=torch.rand(BATCH, count, 8, device=device),
        reference_points=torch.rand(
            BATCH, QUERIES, len(SHAPES), 2, device=device
        ),
        spatial_shapes=shapes,
        level_start_index=starts,
    )
    assert output.shape == (BATCH, QUERIES, 8)
    output.sum().backward()
    assert module.sampling_offsets.weight.grad is not None

"""Deformable convolutions against plain loops."""

import math

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)

# stride, padding, dilation (y, x), groups, groups of offsets
GEOMETRIES = [
    ((1, 1), (1, 1), (1, 1), 1, 1),
    ((2, 1), (0, 2), (1, 2), 2, 1),
    ((1, 2), (2, 1), (2, 1), 1, 2),
    ((1, 1), (1, 0), (1, 1), 2, 2),
]
KERNEL = (3, 2)


def sample(plane, y, x):
    """Bilinear value of a (H, W) plane that is surrounded by zeros."""
    value = plane.new_zeros(())
    y0, x0 = math.floor(y), math.floor(x)
    for row in (y0, y0 + 1):
        for column in (x0, x0 + 1):
            if 0 <= row < plane.size(0) and 0 <= column < plane.size(1):
                factor = (1 - abs(y - row)) * (1 - abs(x - column))
                value = value + factor * plane[row, column]
    return value


def plain(input, offset, mask, weight, stride, pad, dilation, groups, split):
    channels, outs = input.size(1), weight.size(0)
    output = input.new_zeros(input.size(0), outs, *offset.shape[2:])
    spots = KERNEL[0] * KERNEL[1]
    for b, o, i, j in torch.cartesian_prod(
        *(torch.arange(n) for n in output.shape)
    ).tolist():
        for c in range(weight.size(1)):
            source = o // (outs // groups) * weight.size(1) + c
            part = source // (channels // split) * spots
            for k in range(spots):
                ky, kx = divmod(k, KERNEL[1])
                at = 2 * (part + k)
                y = i * stride[0] - pad[0] + ky * dilation[0]
                x = j * stride[1] - pad[1] + kx * dilation[1]
                value = sample(
                    input[b, source],
                    y + float(offset[b, at, i, j]),
                    x + float(offset[b, at + 1, i, j]),
                )
                if mask is not None:
                    value = value * mask[b, part + k, i, j]
                output[b, o, i, j] += weight[o, c, ky, kx] * value
    return output


def operands(geometry, device='cpu', dtype=torch.float64, batch=2):
    stride, pad, dilation, groups, split = geometry
    size = (5, 4)
    out = [
        (size[d] + 2 * pad[d] - dilation[d] * (KERNEL[d] - 1) - 1) // stride[d]
        + 1
        for d in (0, 1)
    ]
    spots = split * KERNEL[0] * KERNEL[1]
    shapes = (
        (batch, 4, *size),
        (batch, 2 * spots, *out),
        (batch, spots, *out),
        (2, 4 // groups, *KERNEL),
        (2,),
    )
    return [torch.randn(s, dtype=dtype).to(device) for s in shapes]


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv2d(device, geometry):
    input, offset, _, weight, _ = operands(geometry, device)
    output = deform_conv2d(input, offset, weight, *geometry)
    expected = plain(input.cpu(), offset.cpu(), None, weight.cpu(), *geometry)
    torch.testing.assert_close(output.cpu(), expected)


@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_deform_conv2d(device, geometry, with_bias):
    input, offset, mask, weight, bias = operands(geometry, device)
    output = modulated_deform_conv2d(
        input, offset, mask, weight, bias if with_bias else None, *geometry
    )
    expected = plain(
        input.cpu(), offset.cpu(), mask.cpu(), weight.cpu(), *geometry
    )
    if with_bias:
        expected += bias.cpu()[:, None, None]
    torch.testing.assert_close(output.cpu(), expected)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv2d_gradient(device, geometry):
    input, offset, _, weight, _ = operands(geometry, device, batch=1)
    assert torch.autograd.gradcheck(
        lambda *tensors: deform_conv2d(*tensors, *geometry),
        [t.requires_grad_() for t in (input, offset, weight)],
        nondet_tol=1e-10,
        fast_mode=True,
    )


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_deform_conv2d_gradient(device, geometry):
    tensors = operands(geometry, device, batch=1)
    assert torch.autograd.gradcheck(
        lambda *tensors: modulated_deform_conv2d(*tensors, *geometry),
        [t.requires_grad_() for t in tensors],
        nondet_tol=1e-10,
        fast_mode=True,
    )
    without_bias = modulated_deform_conv2d(*tensors[:4], None, *geometry)
    without_bias.sum().backward()
    assert tensors[4].grad is None


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 2)])
def test_deform_conv2d_partial_gradients(needed):
    """Frozen operands get no gradient, and do not disturb the others'."""
    geometry = GEOMETRIES[0]
    every = [operands(geometry)[i] for i in (0, 1, 3)]
    some = [t.clone() for t in every]
    for tensor in every:
        tensor.requires_grad_()
    for i in needed:
        some[i].requires_grad_()
    for tensors in (every, some):
        deform_conv2d(*tensors, *geometry).square().sum().backward()
    for i, tensor in enumerate(some):
        if i in needed:
            torch.testing.assert_close(tensor.grad, every[i].grad)
        else:
            assert tensor.grad is None


@pytest.mark.parametrize('modulated', [False, True])
def test_new_model_at_the_border(device, modulated):
    """Offsets of zero and a padding of one sample the border at -1 and H.

    There mmcv's derivative by the offset is zero, not that of one side.
    With an input whose value is its row and a kernel of ones, the derivative
    by a y offset is 1 between rows, and the last row's fall to zero below.
    """
    rows = torch.arange(1.0, 5.0, device=device).double()
    input = rows[:, None].expand(1, 1, 4, 4).contiguous()
    offset = torch.zeros_like(input).repeat(1, 18, 1, 1).requires_grad_()
    weight = torch.ones(1, 1, 3, 3).to(input)
    if modulated:
        mask = torch.ones_like(offset[:, :9])
        output = modulated_deform_conv2d(
            input, offset, mask, weight, None, 1, 1
        )
    else:
        output = deform_conv2d(input, offset, weight, 1, 1)
    output.sum().backward()
    # (kernel y, kernel x, axis, row, column); the middle columns only
    grad = offset.grad.view(3, 3, 2, 4, 4)[:, 1, 0, :, 1].cpu()
    place = torch.arange(3)[:, None] + torch.arange(4) - 1
    expected = torch.tensor([0.0, 1, 1, 1, -4, 0])[place + 1].double()
    assert torch.equal(grad, expected)


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)],
)
def test_dtypes(device, dtype, tolerance, modulated):
    geometry = GEOMETRIES[2]
    tensors = [t.to(dtype) for t in operands(geometry, device)]
    exact = [t.double() for t in tensors]
    results = []
    for group in (tensors, exact):
        for tensor in group:
            tensor.requires_grad_()
        input, offset, mask, weight, bias = group
        if modulated:
            out = modulated_deform_conv2d(
                input, offset, mask, weight, bias, *geometry
            )
        else:
            out = deform_conv2d(input, offset, weight, *geometry)
        out.sum().backward()
        results.append([out, input.grad, offset.grad, weight.grad])
    close = dict(atol=tolerance, rtol=tolerance)
    for low, high in zip(*results, strict=True):
        assert low.dtype == dtype
        torch.testing.assert_close(low.double(), high, **close)


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_offsets_that_are_not_finite(device, value, modulated):
    """A sample without a place is zero; torchvision's kernel crashed."""
    geometry = GEOMETRIES[0]
    maps = operands(geometry, device)
    maps[1][0, 3, 1, 2] = value
    far = [t.clone() for t in maps]
    far[1][0, 3, 1, 2] = -50  # pixels
    results = []
    for group in (maps, far):
        input, offset, mask, weight, bias = (t.requires_grad_() for t in group)
        if modulated:
            output = modulated_deform_conv2d(
                input, offset, mask, weight, bias, *geometry
            )
        else:
            output = deform_conv2d(input, offset, weight, *geometry)
        output.square().sum().backward()
        results.append(
            [output, *(t.grad for t in group if t.grad is not None)]
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('step', [1, 2, 32])
def test_im2col_step_changes_nothing(step):
    geometry = GEOMETRIES[0]
    input, offset, _, weight, _ = operands(geometry, batch=4)
    results = [
        deform_conv2d(input, offset, weight, *geometry, False, s)
        for s in (step, 4)
    ]
    torch.testing.assert_close(*results)


def test_im2col_step_has_to_divide_the_batch():
    geometry = GEOMETRIES[0]
    input, offset, _, weight, _ = operands(geometry, batch=3)
    with pytest.raises(AssertionError, match='divisible by im2col_step'):
        deform_conv2d(input, offset, weight, *geometry, False, 2)


def spread_out(read, extra, seed=0):
    """A larger map whose samples begin with the values of ``read``."""
    batch, channels, height, width = read.shape
    larger = torch.randn(
        (batch, channels + extra[0], height + extra[1], width + extra[2]),
        dtype=read.dtype,
        generator=torch.Generator().manual_seed(seed),
    )
    for b in range(batch):
        memory = larger[b].view(-1)
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    # mmcv's index, with the height and width of the output
                    at = (c * height + y) * width + x
                    memory[at] = read[b, c, y, x]
    return larger


# What offsets and masks have beyond the output: channels, rows, columns.
LARGER = [
    ((0, 3, 2), (0, 3, 2)),  # as in DyHead
    ((0, 0, 1), (0, 0, 0)),
    ((0, 0, 0), (0, 2, 0)),
    ((4, 0, 0), (1, 1, 0)),
]


@pytest.mark.distribution
@pytest.mark.parametrize(('of_offset', 'of_mask'), LARGER)
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_values_beyond_the_output(geometry, of_offset, of_mask):
    """The first values of a sample are read; the others have no gradient."""
    input, offset, mask, weight, bias = operands(geometry)
    exact = [t.requires_grad_() for t in (input, offset, mask, weight, bias)]
    larger = [
        t.detach().clone().requires_grad_()
        for t in (
            input,
            spread_out(offset.detach(), of_offset),
            spread_out(mask.detach(), of_mask),
            weight,
            bias,
        )
    ]
    output = modulated_deform_conv2d(*larger, *geometry)
    expected = plain(
        *(t.detach() for t in exact[:4]), *geometry
    ) + bias.detach().view(-1, 1, 1)
    torch.testing.assert_close(output.detach(), expected)
    factors = torch.randn_like(output)
    (output * factors).sum().backward()
    (modulated_deform_conv2d(*exact, *geometry) * factors).sum().backward()
    for name, one, other in zip('iomwb', exact, larger, strict=True):
        if name in 'om':
            zeros = torch.zeros_like(other)
            for b, grads in enumerate(one.grad):
                zeros[b].view(-1)[: grads.numel()] = grads.reshape(-1)
            torch.testing.assert_close(other.grad, zeros)
        else:
            torch.testing.assert_close(other.grad, one.grad)


def test_values_beyond_the_output_gradient():
    geometry = GEOMETRIES[2]
    input, offset, mask, weight, bias = operands(geometry, batch=1)
    offset, mask = spread_out(offset, (0, 2, 1)), spread_out(mask, (0, 1, 2))
    assert torch.autograd.gradcheck(
        lambda *tensors: modulated_deform_conv2d(*tensors, *geometry),
        [t.requires_grad_() for t in (input, offset, mask, weight, bias)],
        nondet_tol=1e-10,
    )


def test_values_beyond_the_output_in_slices():
    """DyHead cuts offsets and masks out of one map: samples are apart."""
    input, weight = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 3, 3)
    both = torch.rand(2, 27, 8, 8)
    offset, mask = both[:, :18], both[:, 18:].sigmoid()
    assert not offset.is_contiguous()
    results = [
        modulated_deform_conv2d(input, *maps, weight, None, 1, 1)
        for maps in ((offset, mask), (offset.contiguous(), mask.contiguous()))
    ]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ('offset', 'mask', 'named'),
    [((18, 4, 3), (9, 4, 4), 'offset'), ((18, 4, 4), (8, 4, 4), 'mask')],
)
def test_fewer_values_than_are_read(offset, mask, named):
    """Where mmcv reads what lies behind the values there is an error."""
    input, weight = torch.rand(2, 1, 4, 4), torch.rand(1, 1, 3, 3)
    with pytest.raises(RuntimeError, match=f'{named} of shape .* too small'):
        modulated_deform_conv2d(
            input,
            torch.rand(2, *offset),
            torch.rand(2, *mask),
            weight,
            None,
            1,
            1,
        )


def test_inputs_smaller_than_the_kernel():
    input, offset = torch.rand(1, 1, 2, 2), torch.rand(1, 18, 2, 2)
    weight = torch.rand(1, 1, 3, 3)
    with pytest.raises(RuntimeError, match='smaller than kernel'):
        deform_conv2d(input, offset, weight, 1, 1)
    with pytest.raises(ValueError, match='too small'):
        deform_conv2d(input, offset, weight, 1, 0)
    module = DeformConv2d(1, 1, 3, padding=1)  # it pads
    assert module(input, offset).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    'shape', [(1, 16, 4, 4), (1, 18, 3, 4), (1, 18, 5, 4)]
)
def test_offsets_that_do_not_fit(shape):
    """Without masks mmcv wants the output's size, larger is no better."""
    input, weight = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3)
    with pytest.raises(RuntimeError, match='offset'):
        deform_conv2d(input, torch.rand(shape), weight, 1, 1)


@pytest.mark.parametrize(
    'module', [DeformConv2dPack, ModulatedDeformConv2dPack]
)
def test_packs_begin_as_convolutions(device, module):
    """With offsets of zero they convolve; a modulated one halves."""
    layer = module(4, 6, 3, stride=2, padding=1, bias=False).to(device)
    input = torch.rand(2, 4, 9, 7, device=device)
    factor = 0.5 if module is ModulatedDeformConv2dPack else 1
    expected = factor * torch.nn.functional.conv2d(
        input, layer.weight, stride=2, padding=1
    )
    output = layer(input)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    'module', [DeformConv2dPack, ModulatedDeformConv2dPack]
)
def test_packs_under_autocast(device, module):
    """Offsets come out of a convolution in bfloat16, the rest in float32."""
    layer = module(4, 6, 3, padding=1, deform_groups=2).to(device)
    input = torch.rand(1, 4, 8, 8, device=device)
    with torch.autocast(device, torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.conv_offset.weight.grad.any()


def test_modulated_module_matches_function(device):
    geometry = GEOMETRIES[3]
    input, offset, mask, weight, bias = operands(geometry, device)
    stride, padding, dilation, groups, split = geometry
    module = ModulatedDeformConv2d(
        *(4, 2, KERNEL, stride, padding, dilation, groups, split)
    ).to(input)
    module.load_state_dict(dict(weight=weight, bias=bias))
    torch.testing.assert_close(
        module(input, offset, mask),
        modulated_deform_conv2d(input, offset, mask, weight, bias, *geometry),
    )

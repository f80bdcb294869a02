"""roi_align and roi_pool against plain loops."""

import math

import pytest
import torch
from mmcv.ops import RoIAlign, RoIPool, roi_align, roi_pool


def sample(plane, y, x):
    """Bilinear value of a (H, W) plane, as in Mask R-CNN's roi_align."""
    h, w = plane.shape
    if y < -1 or y > h or x < -1 or x > w:
        return 0.0
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
    bottom = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
    return float(top * (1 - y + y0) + bottom * (y - y0))


def plain_roi_align(input, rois, size, scale, ratio, mode, aligned):
    output = torch.zeros(len(rois), input.size(1), *size, dtype=torch.float64)
    for n, roi in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * scale - 0.5 * aligned for v in roi[1:])
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        bin_h, bin_w = height / size[0], width / size[1]
        grid_h = ratio or math.ceil(bin_h)
        grid_w = ratio or math.ceil(bin_w)
        for c, plane in enumerate(input[int(roi[0])]):
            for i in range(size[0]):
                for j in range(size[1]):
                    values = [
                        sample(
                            plane,
                            y1 + i * bin_h + (a + 0.5) * bin_h / grid_h,
                            x1 + j * bin_w + (b + 0.5) * bin_w / grid_w,
                        )
                        for a in range(grid_h)
                        for b in range(grid_w)
                    ]
                    if mode == 'max':
                        output[n, c, i, j] = max(values, default=-1e4)
                    elif values:
                        output[n, c, i, j] = sum(values) / len(values)
    return output


def plain_roi_pool(input, rois, size, scale):
    output = torch.zeros(len(rois), input.size(1), *size, dtype=torch.float64)
    for n, roi in enumerate(rois.tolist()):
        x1, y1 = roi[1] * scale, roi[2] * scale
        x2, y2 = (roi[3] + 1) * scale, (roi[4] + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for i in range(size[0]):
            for j in range(size[1]):
                top = max(math.floor(y1 + i * (y2 - y1) / size[0]), 0)
                left = max(math.floor(x1 + j * (x2 - x1) / size[1]), 0)
                bottom = max(math.ceil(y1 + (i + 1) * (y2 - y1) / size[0]), 0)
                right = max(math.ceil(x1 + (j + 1) * (x2 - x1) / size[1]), 0)
                part = input[int(roi[0]), :, top:bottom, left:right]
                if part.numel():
                    output[n, :, i, j] = part.amax((1, 2))
    return output


# Inside, over every border, far outside, without area; two images.
ROIS = [
    [0, 3.3, 2.1, 17.4, 21.7],
    [1, -6.2, -4.1, 9.5, 8.8],
    [0, 12.7, 11.3, 41.2, 29.9],
    [1, 60.0, 60.0, 71.0, 75.0],
    [0, 7.3, 5.1, 7.3, 5.1],
    [1, 4.6, 0.2, 4.9, 23.0],
]


def inputs(device, dtype=torch.float64):
    input = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    return input.to(device, dtype), torch.tensor(ROIS).to(device, dtype)


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 1, 2])
def test_roi_align(device, ratio, mode, aligned):
    input, rois = inputs(device)
    args = ((3, 2), 0.3, ratio, mode, aligned)
    output = roi_align(input, rois, *args)
    expected = plain_roi_align(input.cpu(), rois.cpu(), *args)
    if mode == 'max' and device == 'cuda':  # mmcv's kernels differ here
        expected[expected == -1e4] = torch.finfo(torch.float32).min
    torch.testing.assert_close(output.cpu(), expected)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [False, True])
def test_roi_align_gradient(device, mode, ratio, aligned):
    input, rois = inputs(device)
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (2, 3), 0.3, ratio, mode, aligned),
        input.requires_grad_(),
        nondet_tol=1e-12,
        fast_mode=mode == 'max',
    )


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)],
)
def test_roi_align_dtypes(device, dtype, tolerance, mode):
    input, rois = inputs(device)
    input, rois = input.to(dtype), rois.to(dtype)
    output = roi_align(input.requires_grad_(), rois, 2, 0.25, 2, mode, True)
    assert output.dtype == dtype
    exact = plain_roi_align(
        input.detach().cpu().double(),
        rois.cpu().double(),
        *((2, 2), 0.25, 2, mode, True),
    )
    torch.testing.assert_close(
        output.detach().cpu().double(), exact, atol=tolerance, rtol=tolerance
    )
    output.sum().backward()
    assert input.grad.dtype == dtype
    if mode == 'avg':
        double = input.detach().double().requires_grad_()
        roi_align(
            double, rois.double(), 2, 0.25, 2, mode, True
        ).sum().backward()
        torch.testing.assert_close(
            input.grad.double(), double.grad, atol=tolerance, rtol=tolerance
        )


def test_roi_align_under_autocast(device):
    """Training with bfloat16 on the CPU: torchvision has no kernel for it."""
    conv = torch.nn.Conv2d(3, 4, 1).to(device)
    input, rois = inputs(device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        feature = conv(input)
        assert feature.dtype == torch.bfloat16
        output = RoIAlign((2, 2), 0.25)(feature, rois.type_as(feature))
        loss = output.float().square().sum()
    assert output.dtype == torch.bfloat16
    loss.backward()
    assert conv.weight.grad.abs().sum() > 0
    assert conv.weight.grad.isfinite().all()


def test_roi_align_keeps_accuracy_in_float32_regions(device):
    """Regions in float32 are not rounded to the features' type."""
    ramp = torch.arange(300.0, device=device).expand(1, 1, 4, 300)
    rois = torch.tensor([[0, 200.25, 0, 201.25, 1]], device=device)
    output = roi_align(ramp.bfloat16(), rois, 1, 1.0, 1, 'avg', False)
    assert float(output) == pytest.approx(200.75, abs=0.5)


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_empty(device, mode):
    input, rois = inputs(device)
    output = roi_align(input.requires_grad_(), rois[:0], 7, 1.0, 0, mode)
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert not input.grad.any()


# In x, in y, in both; as large as a bin, larger than the map.
TURNED = [
    [0, 17.4, 2.1, 3.3, 21.7],
    [1, 2.0, 19.5, 9.5, 8.8],
    [0, 22.7, 18.3, 4.2, 3.9],
    [1, 6.0, 6.0, 5.5, 5.7],
    [0, 60.0, 70.0, -40.0, -30.0],
    [1, 2.0, 3.0, 19.0, 21.0],
]


@pytest.mark.distribution
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_turned_over_regions(device, mode, ratio):
    """Corners in the wrong order are read as mmcv's CUDA kernel does."""
    input = inputs(device)[0]
    rois = torch.tensor(TURNED).to(input)
    args = ((3, 2), 0.3, ratio, mode, True)
    output = roi_align(input, rois, *args)
    expected = plain_roi_align(input.cpu(), rois.cpu(), *args)
    if mode == 'max' and device == 'cuda':
        expected[expected == -1e4] = torch.finfo(torch.float32).min
    torch.testing.assert_close(output.cpu(), expected)
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, *args),
        input.requires_grad_(),
        nondet_tol=1e-12,
        fast_mode=True,
    )


def test_roi_align_mirrors_turned_over_regions(device):
    """With a fixed number of samples, as Sparse R-CNN has."""
    input, rois = inputs(device)
    mirrored = rois[:, [0, 3, 4, 1, 2]]
    torch.testing.assert_close(
        roi_align(input, mirrored, (3, 2), 0.3, 2, 'avg', True),
        roi_align(input, rois, (3, 2), 0.3, 2, 'avg', True).flip(2, 3),
    )
    follows = roi_align(input, mirrored[:3], (3, 2), 0.3, 0, 'avg', True)
    assert not follows.any()


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_roi_align_refuses_corners_without_place(mode, value):
    rois = torch.tensor([[0, 5.0, 5.0, value, 9.0]])
    for aligned in (False, True):
        with pytest.raises(RuntimeError, match='must be finite'):
            roi_align(torch.ones(1, 1, 9, 9), rois, 2, 1.0, 0, mode, aligned)


def test_roi_align_takes_gradients_that_are_not_contiguous(device):
    input, rois = inputs(device)
    other = input.clone().requires_grad_()
    roi_align(input.requires_grad_(), rois, (2, 3)).mul(2).sum().backward()
    output = roi_align(other, rois, (2, 3))
    output.backward(torch.full((), 2.0).to(output).expand_as(output))
    torch.testing.assert_close(input.grad, other.grad)


def test_roi_align_takes_the_first_of_equal_samples(device):
    """Of the samples at 1 and 3 of a plane of ones, (1, 1) is the first."""
    input = torch.ones(1, 1, 5, 5, device=device, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 4, 4]], device=device)
    roi_align(input, rois, 1, 1.0, 2, 'max', False).sum().backward()
    assert input.grad.nonzero().tolist() == [[0, 0, 1, 1]]


def test_roi_align_module_and_torchvision_agree(device):
    input, rois = inputs(device, torch.float32)
    module = RoIAlign((2, 2), 0.3, 2)
    other = RoIAlign((2, 2), 0.3, 2, use_torchvision=True)
    torch.testing.assert_close(module(input, rois), other(input, rois))


@pytest.mark.parametrize('scale', [1.0, 0.3])
def test_roi_pool(device, scale):
    input, rois = inputs(device)
    # A size that bins do not divide, and one with more bins than pixels.
    for size in ((2, 3), (9, 8)):
        output = roi_pool(input, rois, size, scale)
        expected = plain_roi_pool(input.cpu(), rois.cpu(), size, scale)
        assert torch.equal(output.cpu(), expected)


def test_roi_pool_takes_the_first_of_equal_pixels(device):
    input = torch.zeros(1, 1, 4, 4, device=device, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 2, 2]], device=device)
    (3 * roi_pool(input, rois, 1, 1.0)).sum().backward()
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 1, 1] = 3
    assert torch.equal(input.grad.cpu(), expected)


@pytest.mark.parametrize('scale', [1.0, 0.3])
def test_roi_pool_gradient(device, scale):
    input, rois = inputs(device)
    assert torch.autograd.gradcheck(
        lambda x: roi_pool(x, rois, (2, 3), scale),
        input.requires_grad_(),
        nondet_tol=1e-12,
    )


def test_roi_pool_turned_over_regions(device):
    """A region without size gives zeros and no gradient."""
    input = torch.ones(1, 2, 5, 5, device=device, requires_grad=True)
    rois = torch.tensor(
        [[0.0, 4, 1, 2, 3], [0, 4.5, 1, 3.4, 3], [0, 1, 2.5, 3, 1.5]],
        device=device,
    )
    output = roi_pool(input, rois, 2, 1.0)
    output.sum().backward()
    assert not output.any()
    assert not input.grad.any()


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
def test_roi_pool_dtypes(device, dtype):
    """The largest value is one of the input's, exact in every type."""
    input, rois = inputs(device)
    input, rois = input.to(dtype), rois.round().to(dtype)
    output = roi_pool(input.requires_grad_(), rois, 2, 0.5)
    expected = plain_roi_pool(input.detach().cpu(), rois.cpu(), (2, 2), 0.5)
    assert output.dtype == dtype
    assert torch.equal(output.detach().cpu().double(), expected)
    output.sum().backward()
    assert input.grad.dtype == dtype
    assert int(input.grad.sum()) == int((expected != 0).sum())


def test_roi_pool_empty(device):
    input, rois = inputs(device)
    output = RoIPool(3)(input.requires_grad_(), rois[:0])
    assert output.shape == (0, 3, 3, 3)
    output.sum().backward()
    assert not input.grad.any()

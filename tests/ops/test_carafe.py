"""CARAFE against plain loops."""

import pytest
import torch
from mmcv import _ext
from mmcv.ops import CARAFENaive, CARAFEPack, carafe, carafe_naive

pytestmark = pytest.mark.distribution

# kernel, groups, scale
SETTINGS = [(3, 1, 2), (5, 2, 2), (3, 4, 3), (1, 1, 1), (5, 1, 1)]


def plain(features, masks, kernel, groups, scale):
    batch, channels, height, width = features.shape
    output = features.new_zeros(batch, channels, height * scale, width * scale)
    radius = kernel // 2
    for n, c, y, x in torch.cartesian_prod(
        *(torch.arange(size) for size in output.shape)
    ).tolist():
        group = c // (channels // groups)
        for i in range(kernel):
            for j in range(kernel):
                row = y // scale + i - radius
                column = x // scale + j - radius
                if 0 <= row < height and 0 <= column < width:
                    weight = masks[n, (group * kernel + i) * kernel + j, y, x]
                    output[n, c, y, x] += weight * features[n, c, row, column]
    return output


def operands(settings, device='cpu', batch=2, size=(3, 4)):
    kernel, groups, scale = settings
    shapes = (
        (batch, 4, *size),
        (batch, groups * kernel**2, *(n * scale for n in size)),
    )
    return [torch.randn(s, dtype=torch.float64).to(device) for s in shapes]


@pytest.mark.parametrize('function', [carafe, carafe_naive])
@pytest.mark.parametrize('settings', SETTINGS)
def test_forward(device, settings, function):
    features, masks = operands(settings, device)
    expected = plain(features.cpu(), masks.cpu(), *settings)
    output = function(features, masks, *settings)
    torch.testing.assert_close(output.cpu(), expected)


@pytest.mark.parametrize('settings', SETTINGS)
def test_gradient(device, settings):
    tensors = operands(settings, device, batch=1)
    assert torch.autograd.gradcheck(
        lambda *maps: carafe(*maps, *settings),
        [t.requires_grad_() for t in tensors],
        nondet_tol=1e-12,
    )


@pytest.mark.parametrize('settings', SETTINGS[:3])
def test_naive_gradient(device, settings):
    """By itself: mmcv's function refuses a CPU before it asks for it."""
    tensors = operands(settings, device)
    grad = torch.randn_like(carafe(*tensors, *settings))
    naive = [torch.zeros_like(t) for t in tensors]
    names = ('kernel_size', 'group_size', 'scale_factor')
    _ext.carafe_naive_backward(
        grad, *tensors, *naive, **dict(zip(names, settings, strict=True))
    )
    tensors = [t.requires_grad_() for t in tensors]
    carafe(*tensors, *settings).backward(grad)
    for tensor, found in zip(tensors, naive, strict=True):
        assert torch.equal(tensor.grad, found)


@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)],
)
def test_dtypes(device, dtype, tolerance):
    settings = SETTINGS[1]
    low = [t.to(dtype).requires_grad_() for t in operands(settings, device)]
    high = [t.detach().double().requires_grad_() for t in low]
    results = []
    for maps in (low, high):
        output = carafe(*maps, *settings)
        output.sum().backward()
        results.append([output, *(t.grad for t in maps)])
    for one, other in zip(*results, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(
            one.double(), other, atol=tolerance, rtol=tolerance
        )


def test_pack_under_autocast(device):
    layer = CARAFEPack(8, 2, compressed_channels=4).to(device)
    features = torch.rand(1, 8, 5, 6, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        output = layer(features)
    assert output.shape == (1, 8, 10, 12)
    output.float().square().sum().backward()
    assert features.grad.any()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name


def test_channels_last(device):
    settings = SETTINGS[1]
    maps = operands(settings, device)
    last = [t.to(memory_format=torch.channels_last) for t in maps]
    torch.testing.assert_close(
        CARAFENaive(*settings)(*last), CARAFENaive(*settings)(*maps)
    )


def test_memory_is_that_of_the_output():
    """No temporary is larger than the output, in either direction."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                memory = found.untyped_storage().nbytes()
                self.values = max(self.values, memory // found.element_size())
            return found

    settings = (5, 1, 2)
    features = torch.rand(1, 64, 12, 16, requires_grad=True)
    masks = torch.rand(1, 25, 24, 32, requires_grad=True)
    with Largest() as largest:
        output = carafe(features, masks, *settings)
        output.sum().backward()
    assert largest.values == output.numel()

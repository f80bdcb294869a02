"""bbox_overlaps against plain loops."""

import pytest
import torch
from mmcv.ops import bbox_overlaps

FIRST = [[1.0, 1, 3, 4], [2, 2, 3, 4], [7, 7, 8, 8], [0, 0, 50, 50]]
SECOND = [[0.0, 2, 2, 5], [2, 1, 3, 3], [7, 6, 9, 8], [60, 60, 70, 70]]


def overlap(a, b, mode, offset):
    w = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    base = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    if mode == 'iou':
        base += (b[2] - b[0] + offset) * (b[3] - b[1] + offset) - w * h
    return w * h / base


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_bbox_overlaps(device, dtype, mode, offset):
    first = torch.tensor(FIRST, device=device, dtype=dtype)
    second = torch.tensor(SECOND, device=device, dtype=dtype)
    expected = torch.tensor(
        [[overlap(a, b, mode, offset) for b in SECOND] for a in FIRST],
        dtype=dtype,
    )
    every = bbox_overlaps(first, second, mode, offset=offset)
    assert every.device == first.device
    torch.testing.assert_close(every.cpu(), expected)
    pairs = bbox_overlaps(first, second, mode, aligned=True, offset=offset)
    torch.testing.assert_close(pairs.cpu(), expected.diagonal())


def test_bbox_overlaps_of_large_boxes_in_half(device):
    """An area of 300 x 300 is more than float16 can hold."""
    box = torch.tensor([[0.0, 0, 300, 300]], device=device).half()
    assert float(bbox_overlaps(box, box)) == 1


@pytest.mark.parametrize('rows', [0, 3])
@pytest.mark.parametrize('columns', [0, 2])
def test_bbox_overlaps_empty(device, rows, columns):
    first = torch.rand(rows, 4, device=device)
    second = torch.rand(columns, 4, device=device)
    assert bbox_overlaps(first, second).shape == (rows, columns)
    assert bbox_overlaps(first, first, aligned=True).shape == (rows,)

"""nms, batched_nms, soft_nms and nms_match against plain loops."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, nms_match, soft_nms


def iou(a, b, offset=0):
    w = min(a[2], b[2]) - max(a[0], b[0]) + offset
    h = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(w, 0) * max(h, 0)
    union = (
        (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
        + (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
        - inter
    )
    return inter / union if union else math.nan


def plain_nms(boxes, scores, threshold, offset=0):
    boxes, scores = boxes.tolist(), scores.tolist()
    keep = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(iou(boxes[i], boxes[j], offset) > threshold for j in keep):
            keep.append(i)
    return keep


def plain_soft_nms(
    boxes, scores, threshold, sigma, min_score, method, offset=0
):
    boxes, scores = boxes.tolist(), scores.tolist()
    left, out = list(range(len(boxes))), []
    while left:
        i = max(left, key=lambda i: scores[i])
        left.remove(i)
        out.append((i, scores[i]))
        for j in left:
            overlap = iou(boxes[i], boxes[j], offset)
            if method == 'gaussian':
                scores[j] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                scores[j] *= 1 - overlap if method == 'linear' else 0
        left = [j for j in left if scores[j] >= min_score]
    return [i for i, _ in out], [s for _, s in out]


def random_boxes(count, device='cpu', seed=0, integers=False):
    """Crowded boxes with distinct scores, so that no order is a tie."""
    gen = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=gen) * 60
    size = torch.rand(count, 2, generator=gen) * 40 + 1
    boxes = torch.cat([corner, corner + size], 1)
    scores = torch.randperm(count, generator=gen) / count
    return (boxes.round() if integers else boxes).to(device), scores.to(device)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.2, 0.5, 0.7])
def test_nms(device, offset, threshold):
    boxes, scores = random_boxes(150, device)
    dets, keep = nms(boxes, scores, threshold, offset)
    expected = plain_nms(boxes, scores, threshold, offset)
    assert keep.tolist() == expected
    assert 5 < len(expected) < 150
    assert keep.dtype == torch.long
    assert keep.device == boxes.device
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[keep])


def test_nms_offset_decides():
    """9 of 100 pixels and of 121: the offset moves the overlap over 0.1."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [6, 6, 15, 15]])
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.07, offset=0)[1]) == 2
    assert len(nms(boxes, scores, 0.07, offset=1)[1]) == 1


@pytest.mark.parametrize('part', [0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
def test_nms_at_the_threshold(device, part):
    """Equal is not above, in float32 as mmcv compares."""
    boxes = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 10 * part]], device=device
    )
    scores = torch.tensor([0.9, 0.8], device=device)
    assert len(nms(boxes, scores, part)[1]) == 2
    assert len(nms(boxes, scores, part - 1e-3)[1]) == 1


def test_nms_ties_keep_the_input_order():
    boxes, _ = random_boxes(40)
    keep = nms(boxes, torch.full((40,), 0.5), 0.3)[1]
    assert keep.tolist() == plain_nms(boxes, torch.full((40,), 0.5), 0.3)


def test_nms_degenerate_boxes():
    """Empty, repeated and turned over boxes are not dropped by mistake."""
    boxes = torch.tensor(
        [[5.0, 5, 5, 5], [5, 5, 5, 5], [9, 9, 2, 2], [0, 0, 10, 10]]
    )
    keep = nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.5)[1]
    assert keep.tolist() == [0, 1, 2, 3]


def test_nms_score_threshold_and_max_num(device):
    boxes, scores = random_boxes(100, device)
    high = torch.nonzero(scores > 0.4)[:, 0]
    expected = high[plain_nms(boxes[high], scores[high], 0.5)].tolist()
    keep = nms(boxes, scores, 0.5, score_threshold=0.4)[1]
    assert keep.tolist() == expected
    keep = nms(boxes, scores, 0.5, score_threshold=0.4, max_num=7)[1]
    assert keep.tolist() == expected[:7]
    dets, keep = nms(boxes, scores, 0.5, score_threshold=2.0)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)


def test_nms_numpy():
    boxes, scores = (t.numpy() for t in random_boxes(60))
    dets, keep = nms(boxes, scores, 0.5)
    assert isinstance(dets, np.ndarray)
    assert isinstance(keep, np.ndarray)
    assert dets.dtype == np.float32
    assert keep.tolist() == plain_nms(boxes, scores, 0.5)


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float64]
)
def test_nms_dtypes(device, dtype):
    """Whole numbers up to 128 are exact in all of them."""
    boxes, scores = random_boxes(80, device, integers=True)
    dets, keep = nms(boxes.to(dtype), scores, 0.45)
    assert keep.tolist() == plain_nms(boxes, scores, 0.45)
    assert dets.dtype == torch.promote_types(dtype, torch.float32)
    rank = (scores * 80).to(dtype)
    dets, keep = nms(boxes.to(dtype), rank, 0.45)
    assert keep.tolist() == plain_nms(boxes, scores, 0.45)
    assert dets.dtype == dtype


def test_nms_empty(device):
    boxes = torch.empty(0, 4, device=device)
    dets, keep = nms(boxes, boxes.new_empty(0), 0.5)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)
    assert keep.dtype == torch.long
    assert keep.device == boxes.device


def test_nms_takes_tensors_that_require_grad():
    boxes, scores = random_boxes(30)
    dets, keep = nms(boxes.requires_grad_(), scores, 0.5)
    dets.sum().backward()
    assert torch.equal(torch.nonzero(boxes.grad[:, 0])[:, 0], keep.sort()[0])


@pytest.mark.parametrize('split_thr', [10000, 10])
@pytest.mark.parametrize('class_agnostic', [False, True])
def test_batched_nms(device, class_agnostic, split_thr):
    boxes, scores = random_boxes(120, device)
    classes = (torch.arange(120) % 3).to(device)
    config = dict(type='nms', iou_threshold=0.4, split_thr=split_thr)
    dets, keep = batched_nms(boxes, scores, classes, config, class_agnostic)
    # Above split_thr mmcv goes class by class, agnostic or not.
    if class_agnostic and split_thr > 120:
        expected = plain_nms(boxes, scores, 0.4)
    else:
        groups = [torch.nonzero(classes == c)[:, 0] for c in range(3)]
        expected = sorted(
            (
                int(group[i])
                for group in groups
                for i in plain_nms(boxes[group], scores[group], 0.4)
            ),
            key=lambda i: -scores[i],
        )
    assert keep.tolist() == expected
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[keep])
    config = dict(config, max_num=5)
    keep = batched_nms(boxes, scores, classes, config, class_agnostic)[1]
    assert keep.tolist() == expected[:5]


def test_batched_nms_without_config(device):
    boxes, scores = random_boxes(20, device)
    dets, keep = batched_nms(boxes, scores, scores.long(), None)
    assert torch.equal(keep, scores.argsort(descending=True))
    assert torch.equal(dets[:, 4], scores[keep])


@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_soft_nms(split_thr):
    boxes, scores = random_boxes(60)
    classes = torch.arange(60) % 2
    config = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05)
    dets, keep = batched_nms(
        boxes, scores, classes, dict(config, split_thr=split_thr)
    )
    expected = {}
    for c in (0, 1):
        group = torch.nonzero(classes == c)[:, 0]
        index, new = plain_soft_nms(
            boxes[group], scores[group], 0.3, 0.5, 0.05, 'linear'
        )
        expected.update(zip(group[index].tolist(), new, strict=True))
    assert set(keep.tolist()) == set(expected)
    for index, score in zip(keep.tolist(), dets[:, 4].tolist(), strict=True):
        assert score == pytest.approx(expected[index], rel=1e-4)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(device, method, offset):
    boxes, scores = random_boxes(80, device)
    args = (0.3, 0.4, 0.02, method, offset)
    dets, keep = soft_nms(boxes, scores, *args)
    index, new = plain_soft_nms(boxes, scores, *args)
    assert keep.tolist() == index
    assert keep.device == boxes.device
    assert 5 < len(index) < 80
    torch.testing.assert_close(dets[:, 4].cpu(), torch.tensor(new))
    assert torch.equal(dets[:, :4], boxes[keep])


def test_soft_nms_ties():
    """Dropped boxes are replaced by the last, which changes who is next.

    Box 0 drops boxes 1 and 2; 5 and 4 take their places. 5, 4 and 3 do not
    overlap and have one score, so they come out in that order.
    """
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [0, 0, 10, 10],
            [0, 0, 10, 10],
            [20, 0, 30, 10],
            [40, 0, 50, 10],
            [60, 0, 70, 10],
        ]
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.5, 0.5])
    keep = soft_nms(boxes, scores, 0.3, min_score=0.1, method='naive')[1]
    assert keep.tolist() == [0, 5, 4, 3]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_soft_nms_numpy(dtype):
    boxes, scores = (t.numpy().astype(dtype) for t in random_boxes(30))
    before = boxes.copy(), scores.copy()
    dets, keep = soft_nms(boxes, scores, method='gaussian')
    assert isinstance(dets, np.ndarray)
    assert isinstance(keep, np.ndarray)
    assert dets.dtype == dtype
    expected = plain_soft_nms(boxes, scores, 0.3, 0.5, 1e-3, 'gaussian')
    assert keep.tolist() == expected[0]
    assert np.array_equal(boxes, before[0])
    assert np.array_equal(scores, before[1])


def test_soft_nms_low_precision():
    boxes, scores = random_boxes(30, integers=True)
    dets, keep = soft_nms(boxes.bfloat16(), scores)
    expected = plain_soft_nms(
        boxes, scores.bfloat16().float(), 0.3, 0.5, 1e-3, 'linear'
    )
    assert dets.dtype == torch.bfloat16
    assert set(keep.tolist()) == set(expected[0])


def test_soft_nms_empty():
    dets, keep = soft_nms(torch.empty(0, 4), torch.empty(0))
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)
    assert keep.dtype == torch.long


def test_soft_nms_empty_boxes_stay():
    """Boxes without area overlap nothing, themselves neither."""
    boxes = torch.tensor([[4.0, 3, 5, 3], [3, 1, 3, 1], [3, 1, 3, 1]])
    scores = torch.tensor([0.9, 0.5, 0.4])
    dets, keep = soft_nms(boxes, scores)
    assert keep.tolist() == [0, 1, 2]
    assert torch.equal(dets[:, 4], scores)


def test_soft_nms_of_empty_boxes_by_gauss():
    """0 / 0 makes their scores NaN, which are taken last, as by mmcv."""
    boxes = torch.tensor([[3.0, 1, 3, 1], [3, 1, 3, 1], [0, 0, 9, 9]])
    scores = torch.tensor([0.9, 0.5, 0.4])
    dets, keep = soft_nms(boxes, scores, method='gaussian')
    assert keep.tolist() == [0, 1, 2]
    assert dets[1, 4].isnan()
    dets, keep = soft_nms(boxes[[0, 2, 1]], scores, method='gaussian')
    assert keep.tolist() == [0, 1, 2]
    assert dets[2, 4].isnan()


@pytest.mark.parametrize('threshold', [0.3, 0.6])
def test_nms_match(threshold):
    boxes, scores = random_boxes(70)
    dets = torch.cat([boxes, scores[:, None]], 1)
    groups = nms_match(dets, threshold)
    left = sorted(range(70), key=lambda i: -scores[i])
    for group in groups:
        best = left[0]
        expected = [
            i
            for i in left
            if i == best
            or iou(boxes[best].tolist(), boxes[i].tolist()) >= threshold
        ]
        assert group.tolist() == expected
        assert group.dtype == torch.long
        left = [i for i in left if i not in expected]
    assert left == []
    as_numpy = nms_match(dets.numpy(), threshold)
    assert all(isinstance(group, np.ndarray) for group in as_numpy)
    assert [g.tolist() for g in as_numpy] == [g.tolist() for g in groups]


def test_nms_match_at_the_threshold_and_empty():
    dets = torch.tensor([[0.0, 0, 10, 10, 0.9], [0, 0, 10, 5, 0.8]])
    assert len(nms_match(dets, 0.5)) == 1
    assert len(nms_match(dets, 0.51)) == 2
    assert nms_match(dets[:0], 0.5) == []

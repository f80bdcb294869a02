"""Parts of the deploy heads against those of mmdet and mmcv."""

import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmengine.config import ConfigDict

from mmtransxnet.deploy.graphs.anchors import Anchors
from mmtransxnet.deploy.graphs.boxes import BoxDecoder
from mmtransxnet.deploy.graphs.nms import (
    ABSENT,
    Suppression,
    best_candidates,
    detections,
)
from mmtransxnet.deploy.graphs.roi_align import RoIExtractor, with_samples
from mmtransxnet.utils.errors import UserError


def random_boxes(*shape, size=100.0):
    corners = torch.rand(*shape, 2, 2) * size
    return torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_anchors_are_those_of_mmdet():
    generator = AnchorGenerator(
        strides=[4, (8, 16)], ratios=[0.5, 1, 2], scales=[8, 4]
    )
    anchors = Anchors(generator)
    sizes = [(5, 7), (1, 3)]
    expected = generator.grid_priors(sizes, device='cpu')
    for level, (size, want) in enumerate(zip(sizes, expected, strict=True)):
        assert torch.equal(anchors(level, *size), want)


def test_boxes_are_decoded_and_clipped_as_by_mmdet():
    coder = DeltaXYWHBBoxCoder(
        target_means=(0.1, 0.0, 0.2, 0.0), target_stds=(0.1, 0.1, 3.0, 3.0)
    )
    boxes, deltas = random_boxes(2, 50), torch.randn(2, 50, 4)
    sizes = torch.tensor([[60, 70], [40, 100]])
    got = BoxDecoder(coder)(boxes, deltas, sizes)
    for i in range(2):
        want = coder.decode(boxes[i], deltas[i], max_shape=sizes[i].tolist())
        torch.testing.assert_close(got[i], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'bad', [dict(clip_border=False), dict(add_ctr_clamp=True)]
)
def test_another_coder_is_refused(bad):
    with pytest.raises(UserError, match='bbox_coder'):
        BoxDecoder(DeltaXYWHBBoxCoder(**bad))


# mmcv suppresses by class where it splits, whatever class_agnostic says.
@pytest.mark.parametrize(
    ('agnostic', 'split_thr'), [(False, 10000), (True, 10000), (False, 50)]
)
def test_suppression_is_that_of_mmcv(agnostic, split_thr):
    config = ConfigDict(
        nms=dict(
            type='nms',
            iou_threshold=0.3,
            class_agnostic=agnostic,
            split_thr=split_thr,
        ),
        max_per_img=30,
    )
    boxes = random_boxes(3, 200).round()
    # Few different scores: most are tied.
    scores = torch.randint(0, 5, (3, 200)) / 4
    scores[1, ::2] = ABSENT
    scores[2] = ABSENT
    labels = torch.randint(0, 3, (3, 200))
    count, *outputs = detections(
        boxes, scores, labels, Suppression(config, 'test_cfg')
    )
    for i in range(3):
        valid = scores[i] >= 0
        if not valid.any():
            assert count[i] == 0
            continue
        want, kept = batched_nms(
            boxes[i, valid], scores[i, valid], labels[i, valid], config.nms
        )
        n = min(30, len(kept))
        assert count[i] == n
        if split_thr == 50:
            # mmcv then orders equal scores arbitrarily.
            got = outputs[1][i, :n]
            assert torch.equal(got, want[:n, 4])
            continue
        got = torch.cat([outputs[0][i, :n], outputs[1][i, :n, None]], dim=1)
        assert torch.equal(got, want[:n])
        assert torch.equal(outputs[2][i, :n], labels[i, valid][kept[:n]])


@pytest.mark.parametrize(
    'change',
    [dict(nms=dict(type='soft_nms', iou_threshold=0.5)), dict(max_per_img=-1)],
)
def test_another_suppression_is_refused(change):
    config = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    with pytest.raises(UserError, match='test_cfg'):
        Suppression(ConfigDict({**config, **change}), 'test_cfg')


def test_fewer_candidates_than_rows():
    scores, index = best_candidates(torch.tensor([[0.0, 0.5, 0.5]]), 5)
    assert scores.tolist() == [[0.5, 0.5, 0.0, ABSENT, ABSENT]]
    assert index.tolist() == [[1, 2, 0, 0, 0]]


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_regions_are_sampled_as_by_mmdet(sampling_ratio):
    layer = dict(type='RoIAlign', output_size=3, sampling_ratio=sampling_ratio)
    extractor = SingleRoIExtractor(layer, 4, [4, 8, 16, 32])
    features = tuple(
        torch.randn(2, 4, 512 // s, 640 // s) for s in (4, 8, 16, 32, 64)
    )
    boxes = random_boxes(2, 60, size=500.0)
    # On the limits of the levels, and empty.
    for i, side in enumerate([0, 112, 224, 448]):
        boxes[0, i] = torch.tensor([0, 0, side, side])
    rois = with_samples(boxes)
    expected = extractor(features[:4], rois)
    got = RoIExtractor(extractor)(features, rois)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    levels = RoIExtractor(extractor).levels(rois)
    assert torch.equal(levels, extractor.map_roi_levels(rois, 4))
    assert set(levels.tolist()) == {0, 1, 2, 3}

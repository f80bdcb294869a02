"""Whether class activation lies in the boxes of a detector."""

import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from mmtransxnet.analysis.observation import tensors
from mmtransxnet.analysis.pointing_game import in_box, play
from mmtransxnet.analysis.targets import find_detections, find_target
from mmtransxnet.utils.errors import UserError
from tests.support.compare import assert_identical
from tests.support.detectors import detector, detector_config
from tests.support.models import micro_model

SIZE = (64, 96)


def test_known_maps():
    """All of the map in the box, nothing of it, everywhere the same."""
    box = np.array([2.0, 1.0, 5.0, 3.0])
    inside = np.zeros((8, 12))
    inside[1:3, 2:5] = 1
    assert in_box(inside, box) == (1, True, 6 / 96)
    assert in_box(1 - inside, box) == (0, False, 6 / 96)
    energy, _, area = in_box(np.ones((8, 12)), box)
    assert energy == pytest.approx(area)
    inside[0, 0] = 2  # the maximum, outside
    assert in_box(inside, box) == (pytest.approx(6 / 8), False, 6 / 96)
    inside[:, 6:] = np.nan  # cropped by the test pipeline
    assert in_box(inside, box) == (pytest.approx(6 / 8), False, 6 / 48)
    energy, maximum, _ = in_box(np.zeros((8, 12)), box)
    assert math.isnan(energy)
    assert not maximum


def data_of(seed):
    image = np.random.RandomState(seed).randint(0, 256, (*SIZE, 3))
    meta = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))
    return dict(
        inputs=tensors([image.astype('uint8')]),
        data_samples=[DetDataSample(metainfo=meta)],
    )


def test_regions_that_are_read_from_all_maps_have_no_stage():
    config = detector_config('MaskRCNN')
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        extractor = config.model.roi_head[name]
        extractor.update(type='GenericRoIExtractor', aggregation='sum')
        extractor.pop('finest_scale', None)
    model = detector(config, pyramid=False)
    inputs, samples = model.data_preprocessor(data_of(0)).values()
    with torch.no_grad():
        target = find_target(model, inputs, samples, 0)
    assert target.stage is None


@pytest.mark.parametrize('name', ['RetinaNet', 'MaskRCNN'])
def test_each_detection_with_both_weights(name):
    model = detector(detector_config(name), pyramid=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    other = detector(detector_config(name), seed=1, pyramid=False)
    data = [data_of(0), data_of(1)]
    batches = [model.data_preprocessor(item) for item in data]
    with torch.no_grad():
        third = find_target(model, *batches[0].values(), 2)
        found = [
            find_detections(model, *batch.values(), third.score)
            for batch in batches
        ]
    np.testing.assert_array_equal(found[0][2].box, third.box)
    expected = [len(targets) for targets in found]
    hits = list(play(model, data, [1, 3], other.state_dict(), third.score))
    assert len(hits) == sum(expected) * 2 * 2 * 2
    assert_identical(model.state_dict(), before)
    for picture, count in enumerate(expected):
        of = [hit for hit in hits if hit.picture == picture]
        assert {hit.detection for hit in of} == set(range(count))
    maps = {}
    for hit in hits:
        assert 0 < hit.area < 1
        key = (hit.random, hit.method, hit.stage)
        maps.setdefault(key, []).append(hit.energy)
    for random in (False, True):
        for method in ('grad-cam', 'eigen-cam'):
            assert maps[random, method, 1] != maps[random, method, 3]
    assert maps[False, 'grad-cam', 1] != maps[True, 'grad-cam', 1]
    # With its own weights, the random model is the trained one.
    same = list(play(model, data[:1], [1], before, third.score))
    half = len(same) // 2
    assert [h.energy for h in same[:half]] == [h.energy for h in same[half:]]


def test_errors():
    model = detector(detector_config('RetinaNet'), pyramid=False)
    with pytest.raises(UserError, match='stage 5: the model runs'):
        list(play(model, [data_of(0)], [4], model.state_dict()))
    with pytest.raises(UserError, match='TransXNet detects nothing'):
        list(play(micro_model(), [data_of(0)], [1], {}))

"""Predictions of overlapping windows, merged."""

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from pycocotools import mask as coco

from mmtransxnet.apis.frames import Frame
from mmtransxnet.apis.inputs import Source
from mmtransxnet.apis.tiles import LabelMerger, ObjectMerger, merge, parts_of
from mmtransxnet.utils.errors import UserError

# Height, width and the objects of a picture: x1, y1, x2, y2 and class.
SIZE = (100, 300)
OBJECTS = [
    (10, 10, 40, 40, 0),
    (80, 20, 110, 60, 1),  # across the edges of windows
    (170, 70, 200, 95, 0),
    (260, 30, 299, 99, 1),
]


def perfect_detector(window, masks=True):
    """The objects in a window as far as they are seen in it."""
    x, y, width, height = window
    limit = np.array([width, height, width, height])
    boxes, labels, scores, found = [], [], [], []
    for index, (*box, label) in enumerate(OBJECTS):
        shifted = np.clip(np.array(box) - [x, y, x, y], 0, limit)
        x1, y1, x2, y2 = shifted
        if x1 >= x2 or y1 >= y2:
            continue
        mask = np.zeros((height, width), bool)
        mask[y1:y2, x1:x2] = True
        boxes.append(shifted)
        labels.append(label)
        # A cut one has the higher score.
        seen = (x2 - x1) * (y2 - y1)
        whole = (box[2] - box[0]) * (box[3] - box[1])
        scores.append(0.9 - 0.01 * index - 0.2 * (seen == whole))
        found.append(mask)
    instances = InstanceData(
        bboxes=torch.tensor(np.array(boxes)).float().reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
    if masks:
        shape = (len(found), height, width)
        instances.masks = torch.tensor(np.array(found, bool).reshape(shape))
    sample = DetDataSample()
    sample.pred_instances = instances
    return sample


def tiled(frame, size, predict, merger):
    def predicted():
        for part in parts_of(frame, size):
            part.prediction = predict(part.window)
            yield part

    ((_, prediction),) = merge(predicted(), lambda _: merger)
    return prediction


def whole_frame(size=SIZE):
    return Frame(Source('x.png', 'x.png'), size=size)


def test_objects_across_seams_are_found_once():
    merger = ObjectMerger(SIZE, 0.5)
    sample = tiled(whole_frame(), 100, perfect_detector, merger)
    found = sample.pred_instances
    got = sorted(
        (*map(int, box), int(label))
        for box, label in zip(found.bboxes, found.labels, strict=True)
    )
    assert got == sorted(OBJECTS)
    assert (found.scores.diff() <= 0).all()
    for box, patch in zip(found.bboxes, found.patches, strict=True):
        x1, y1, x2, y2 = map(int, box)
        mask = coco.decode(patch.run_length(*SIZE))
        assert mask[y1:y2, x1:x2].all()
        assert mask.sum() == (x2 - x1) * (y2 - y1)


def test_objects_of_other_classes_stay():
    """Suppression and coverage are class-wise."""
    boxes = [[0, 0, 50, 50], [0, 0, 50, 50], [0, 0, 48, 50]]

    def predict(window):
        sample = DetDataSample()
        count = 3 if window[0] == 0 else 0
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(boxes[:count]).float().reshape(-1, 4),
            scores=torch.tensor([0.9, 0.8, 0.7][:count]),
            labels=torch.tensor([0, 1, 0][:count]),
        )
        return sample

    merger = ObjectMerger((100, 200), 0.5)
    sample = tiled(whole_frame((100, 200)), 100, predict, merger)
    assert sample.pred_instances.labels.tolist() == [0, 1]
    assert 'patches' not in sample.pred_instances


@pytest.mark.parametrize('channels', [1, 3])
def test_label_maps_are_blended(channels):
    """Equal logits give the map of the whole picture; edges count less."""
    logits = torch.randn(channels, 130, 250)

    def predict(window):
        x, y, width, height = window
        crop = logits[:, y : y + height, x : x + width].clone()
        crop[..., 0] = crop[..., -1] = (
            1000 * (torch.arange(channels) == 0)[:, None]
        )
        sample = SegDataSample()
        sample.seg_logits = PixelData(data=crop)
        return sample

    size = (130, 250)
    sample = tiled(whole_frame(size), 64, predict, LabelMerger(size, 0.5))
    labels = sample.pred_sem_seg.data
    expected = logits.argmax(0) if channels > 1 else logits[0] > 0.5
    assert labels.shape == (1, *size)
    same = labels[0] == expected
    # In the columns of an edge, the disturbance is seen.
    assert same.float().mean() > 0.85
    columns = same.all(0)
    assert columns.sum() > 200
    assert sample.ori_shape == size


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_a_small_picture_is_predicted_as_without(models, pictures, task):
    model = models[task]
    (plain,) = model(pictures / '0.png')
    (tiled,) = model(pictures / '0.png', tile=128)
    assert plain.to_dict() == tiled.to_dict()


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_a_large_picture_is_written_and_drawn(models, tmp_path, task):
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), 'uint8')
    mmcv.imwrite(image, str(tmp_path / 'x.png'))
    (result,) = models[task](
        tmp_path / 'x.png',
        tmp_path / 'out',
        json=tmp_path / 'r.json',
        tile=96,
        batch_size=4,
    )
    assert result.error is None
    assert mmcv.imread(str(result.drawing)).shape == (150, 200, 3)
    data = result.to_dict()
    assert (data['width'], data['height']) == (200, 150)
    if task == 'detector':
        found = result.prediction.pred_instances
        assert len(data['results']) == len(found) > 0
        assert float(found.bboxes[:, 2].max()) > 100
        for entry in data['results']:
            assert entry['segmentation']['size'] == [150, 200]
    else:
        assert result.prediction.pred_sem_seg.data.shape == (1, 150, 200)
        assert sum(e['pixels'] for e in data['results']) == 150 * 200


def test_refused(models, pictures):
    with pytest.raises(UserError, match='one answer for a picture'):
        models['classifier'](pictures, tile=64)
    with pytest.raises(UserError, match='at least 32'):
        models['detector'](pictures, tile=8)

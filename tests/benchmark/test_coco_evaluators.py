"""pycocotools and faster-coco-eval give the same figures."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS, init_default_scope
from pycocotools import mask as coco_mask


@pytest.fixture
def truth(digits):
    """Annotations of a few scenes."""
    return digits / 'coco/annotations/instances_val.json'


def predictions(path):
    """The truth, moved about, with wrong classes and inventions."""
    truth = json.loads(path.read_text())
    random = np.random.default_rng(0)
    samples = []
    for image in truth['images']:
        mine = [
            a for a in truth['annotations'] if a['image_id'] == image['id']
        ]
        boxes = np.array([a['bbox'] for a in mine] * 2, float)
        boxes[:, 2:] += boxes[:, :2]
        boxes += random.normal(0, 2, boxes.shape)
        labels = np.array([a['category_id'] for a in mine] * 2)
        ids = sorted(c['id'] for c in truth['categories'])
        labels = np.array([ids.index(label) for label in labels])
        wrong = random.random(len(labels)) < 0.2
        labels[wrong] = random.integers(0, 10, wrong.sum())
        masks = [coco_mask.decode(rle(a, image)) for a in mine] * 2
        masks = np.array([np.roll(m, random.integers(3), 0) for m in masks])
        samples.append(
            dict(
                img_id=image['id'],
                ori_shape=(image['height'], image['width']),
                pred_instances=dict(
                    bboxes=torch.tensor(boxes),
                    scores=torch.tensor(random.random(len(labels))),
                    labels=torch.tensor(labels),
                    masks=torch.tensor(masks).bool(),
                ),
            )
        )
    return samples


def rle(annotation, image):
    """The mask of an annotation, whatever its form."""
    mask = annotation['segmentation']
    size = image['height'], image['width']
    if isinstance(mask, list):
        return coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    if isinstance(mask['counts'], list):
        return coco_mask.frPyObjects(mask, *size)
    return mask


def evaluate(kind, path, samples):
    init_default_scope('mmdet')
    metric = METRICS.build(
        dict(type=kind, ann_file=str(path), metric=['bbox', 'segm'])
    )
    metric.dataset_meta = dict(classes=tuple(str(i) for i in range(10)))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_the_same_figures(truth):
    samples = predictions(truth)
    one = evaluate('CocoMetric', truth, samples)
    other = evaluate('FasterCocoMetric', truth, samples)
    assert one.keys() == other.keys()
    assert len(one) == 12
    for name, value in one.items():
        # Rounded to three digits by mmdet.
        assert other[name] == pytest.approx(value, abs=1e-3), name
    assert 0.1 < one['coco/bbox_mAP'] < 0.9
    assert 0.1 < one['coco/segm_mAP'] < 0.9

"""Average precision, kinds of errors and confusion of hand-made scenes."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmtransxnet.report import detection
from mmtransxnet.report.detection import Scene
from mmtransxnet.report.detector import compare


def scene(found, truth, **changes):
    """A scene from ``(label, score, [IoU with each object])``."""
    ious = np.array([row[2] for row in found]).reshape(-1, len(truth))
    values = dict(
        scores=np.array([row[1] for row in found]),
        labels=np.array([row[0] for row in found], int),
        truths=np.array(truth, int),
        ignored=np.zeros(len(truth), bool),
        ious=ious,
    )
    return Scene(**{**values, **changes})


# Two objects, of class 0 and 1; one error of each kind.
KINDS = [
    ('hit', (0, 0.9, [0.8, 0.0])),
    ('classification', (0, 0.9, [0.0, 0.6])),
    ('localisation', (0, 0.9, [0.3, 0.0])),
    ('both', (0, 0.9, [0.0, 0.3])),
    ('background', (0, 0.9, [0.05, 0.05])),
    ('localisation', (0, 0.9, [0.1, 0.0])),
    ('hit', (0, 0.9, [0.5, 0.0])),
]


@pytest.mark.parametrize(('kind', 'found'), KINDS)
def test_kinds(kind, found):
    assert detection.judge(scene([found], [0, 1])).kinds == [kind]


def test_second_detection_is_a_duplicate():
    found = [(0, 0.9, [0.7, 0.0]), (0, 0.8, [0.9, 0.0])]
    judged = detection.judge(scene(found, [0, 1]))
    assert judged.kinds == ['hit', 'duplicate']
    assert judged.missed.tolist() == [False, True]


def test_nearly_found_objects_are_not_missed():
    found = [(0, 0.9, [0.3, 0.0]), (0, 0.8, [0.0, 0.7])]
    judged = detection.judge(scene(found, [0, 1]))
    assert judged.kinds == ['localisation', 'classification']
    assert not judged.missed.any()


def costs(*scenes):
    kinds = detection.ErrorCosts(scenes).kinds()
    return {kind.name: (kind.count, kind.delta) for kind in kinds}


def test_cost_of_a_missed_object():
    """One of two found: precision 1 up to recall 0.5, 51 of 101 points."""
    found = costs(scene([(0, 0.9, [0.9, 0.0])], [0, 0]))
    assert found.pop('missed') == (1, pytest.approx(50 / 101))
    assert set(found.values()) == {(0, 0.0)}


def test_cost_of_a_false_detection_before_the_hit():
    """Precision 1/2 everywhere, 1 without the false one."""
    found = costs(scene([(0, 0.9, [0.0]), (0, 0.8, [0.9])], [0]))
    assert found['background'] == (1, pytest.approx(0.5))
    assert found['missed'] == (0, 0.0)


def test_cost_of_a_duplicate():
    """Hit, duplicate, hit: 51 points at 1, 50 at 2/3."""
    rows = [(0, 0.9, [0.9, 0]), (0, 0.8, [0.9, 0]), (0, 0.7, [0, 0.9])]
    found = costs(scene(rows, [0, 0]))
    assert found['duplicate'] == (1, pytest.approx(50 / 101 / 3))


def test_cost_of_a_wrong_class():
    """Class 0 perfect but for a false one behind; class 1 not found."""
    rows = [(0, 0.9, [0.9, 0.0]), (0, 0.8, [0.0, 0.9])]
    found = costs(scene(rows, [0, 1]))
    assert found['classification'] == (1, pytest.approx(0.5))
    assert found['missed'] == (0, 0.0)


def test_cost_of_a_wrong_place():
    found = costs(scene([(0, 0.9, [0.4])], [0]))
    assert found['localisation'] == (1, pytest.approx(1.0))


def test_mended_duplicates_do_not_hit_twice():
    """Both mean the same object: mended, one hits and one is dropped."""
    rows = [(0, 0.9, [0.4, 0.0]), (0, 0.8, [0.3, 0.0])]
    found = costs(scene(rows, [0, 0]))
    assert found['localisation'] == (2, pytest.approx(51 / 101))


def test_targets_are_told_apart_between_pictures():
    wrong = scene([(0, 0.9, [0.4])], [0])
    found = costs(wrong, wrong)
    assert found['localisation'] == (2, pytest.approx(1.0))


def test_nothing_detected():
    found = costs(scene([], [0, 1, 1]))
    assert found['missed'] == (3, pytest.approx(1.0))
    assert found['background'] == (0, 0.0)


def test_confusion():
    rows = [
        (0, 0.9, [0.9, 0.0, 0.0]),  # right
        (0, 0.8, [0.0, 0.6, 0.0]),  # class 1 taken for 0
        (1, 0.7, [0.0, 0.0, 0.2]),  # background taken for 1
        (0, 0.2, [0.0, 0.0, 0.9]),  # below the least score
    ]
    counts = detection.confusion([scene(rows, [0, 1, 0])], 2)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_ignored_objects_count_for_nothing():
    one = scene(
        [(0, 0.9, [0.0, 0.9]), (0, 0.8, [0.9, 0.0])],
        [0, 0],
        ignored=np.array([False, True]),
    )
    assert detection.judge(one).kinds == ['ignored', 'hit']
    precisions = detection.rank([one], 0).precisions()
    assert precisions[0].mean() == 1.0
    assert detection.confusion([one], 1).tolist() == [[1, 0], [0, 0]]


def test_class_without_objects_has_no_precision():
    one = scene([(1, 0.9, [0.0])], [0])
    assert detection.rank([one], 1).precisions() is None
    mean, curves = detection.precision_curves(
        ['a', 'b'], [detection.rank([one], k).precisions() for k in (0, 1)]
    )
    assert mean.ap == 0.0
    assert [curve.ap for curve in curves] == [0.0, None]


def random_pictures(rng):
    """Pictures with annotations and detections near some of them."""
    for number in range(12):
        count = rng.integers(0, 6)
        corners = rng.uniform(0, 80, (count, 2))
        boxes = np.concatenate(
            [corners, corners + rng.uniform(8, 40, (count, 2))], 1
        )
        truth = [
            dict(
                bbox=box.tolist(),
                bbox_label=int(rng.integers(3)),
                ignore_flag=int(rng.random() < 0.15),
            )
            for box in boxes
        ]
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 3, (2 * count, 4))
        labels = np.repeat([one['bbox_label'] for one in truth], 2)
        labels = np.where(rng.random(2 * count) < 0.2, 2, labels).astype(int)
        scores = np.sort(rng.random(2 * count))[::-1]
        order = rng.permutation(2 * count)
        yield (
            number,
            truth,
            dict(boxes=near[order], scores=scores, labels=labels[order]),
        )


def test_average_precision_is_that_of_coco():
    pictures = list(random_pictures(np.random.default_rng(3)))
    scenes = [
        compare(found, truth, (128, 128)) for _, truth, found in pictures
    ]
    annotations, detections = [], []
    for number, truth, found in pictures:
        for one in truth:
            left, top, right, bottom = one['bbox']
            sides = right - left, bottom - top
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=number,
                    category_id=one['bbox_label'], area=sides[0] * sides[1],
                    bbox=[left, top, *sides], iscrowd=one['ignore_flag'],
                )
            )  # fmt: skip
        for box, score, label in zip(*found.values(), strict=True):
            left, top, right, bottom = box.tolist()
            detections.append(
                dict(
                    image_id=number, category_id=int(label), score=score,
                    bbox=[left, top, right - left, bottom - top],
                )
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(
            images=[dict(id=number) for number, *_ in pictures],
            annotations=annotations,
            categories=[dict(id=k, name=str(k)) for k in range(3)],
        )
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(detections), 'bbox')
        judge.evaluate()
        judge.accumulate()
    expected = judge.eval['precision'][:, :, :, 0, 2]
    for label in range(3):
        found = detection.rank(scenes, label).precisions()
        assert 0.01 < found.mean() < 0.9
        np.testing.assert_allclose(found, expected[:, :, label], atol=1e-9)

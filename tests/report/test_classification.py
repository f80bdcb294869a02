"""Rates, curves and calibration of hand-made scores; counts of pixels."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mmtransxnet.deploy import runtime
from mmtransxnet.report import classification, segmentation
from mmtransxnet.report.classifier import ClassifierStudy
from mmtransxnet.report.findings import (
    Confusion,
    Curve,
    Findings,
    drawn_curves,
    part_of_confusion,
)
from mmtransxnet.report.study import Extremes


def test_confusion_and_rates():
    counts = classification.confusion(
        np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 3
    )
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    first, second, absent = classification.rates(counts)
    assert first == (3, 1.0, pytest.approx(2 / 3), pytest.approx(0.8))
    assert second == (1, 0.5, 1.0, pytest.approx(2 / 3))
    assert absent == (0, None, None, None)


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truths = rng.random(400) < 0.3
    # With scores that are equal.
    scores = (rng.random(400) + truths).round(1)
    curve = classification.precision_curve('a', scores, truths)
    assert curve.ap == pytest.approx(average_precision_score(truths, scores))
    assert curve.recall[-1] == 1.0


def test_colours_of_other_classes_are_not_used():
    """CocoDataset has the colours of COCO's classes for any classes."""
    for count, own in ((2, True), (80, False)):
        colours = [(0, 0, i) for i in range(80)]
        meta = {'classes': list(map(str, range(count))), 'palette': colours}
        study = ClassifierStudy(SimpleNamespace(metainfo=meta))
        expected = runtime.colours(count) if own else colours
        assert study.palette.tolist() == [list(one) for one in expected]


def test_class_without_pictures_has_no_curve():
    curve = classification.precision_curve('a', np.ones(2), np.zeros(2, bool))
    assert curve.ap is None
    assert classification.mean_curve([curve]) is None


def test_calibration():
    """Bins (0.6, 0.667] and (0.933, 1]: |0.65 - 0.5| / 2 + |1 - 1| / 2."""
    found = classification.calibrate(
        np.array([0.65, 0.65, 1.0, 1.0]), np.array([True, False, True, True])
    )
    assert found.error == pytest.approx(0.075)
    assert found.count == [2, 2]
    assert found.accuracy == [0.5, 1.0]


def test_pixels():
    truth = np.array([[0, 0, 1], [1, 255, 255]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    counts = segmentation.confusion(predicted, truth, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert segmentation.overlaps(counts) == [0.5, pytest.approx(2 / 3), None]
    assert segmentation.mean_overlap(counts) == pytest.approx(7 / 12)
    assert segmentation.mean_overlap(0 * counts) is None


def test_large_confusion_keeps_the_most_confused_and_the_background():
    counts = np.diag(np.full(40, 5))
    counts[33, 2] = 9
    part = part_of_confusion(list(map(str, range(40))), counts, 'Counts.', 39)
    assert len(part.names) == 30
    assert {'33', '2', '39'} <= set(part.names)
    assert 'Of 40 rows' in part.note
    row, column = part.names.index('33'), part.names.index('2')
    assert part.counts[row][column] == 9


def test_few_curves_are_drawn():
    curves = [Curve(str(k), [0, 1], [1, 1], k / 20) for k in range(20)]
    drawn = drawn_curves(curves[5], [*curves, Curve('none', [], [], None)])
    assert [one.name for one in drawn] == [
        '5',
        '0',
        '1',
        '2',
        '17',
        '18',
        '19',
    ]


def test_extremes_are_in_one_group_only():
    extremes = Extremes()
    for score in (3, 1, 2):
        extremes.offer((score,), score)
    assert extremes.groups() == [('worst', 1), ('worst', 2), ('best', 3)]
    for score in range(4, 40):
        extremes.offer((score,), score)
    items = [item for _, item in extremes.groups()]
    assert items == [1, 2, 3, 4, 5, 6, 39, 38, 37, 36, 35, 34]


def test_findings_are_read_as_written():
    found = Findings(
        confusion=Confusion(['a'], [[1]], ''),
        curves=[Curve('a', [0.0], [1.0], 0.5)],
        calibration=classification.calibrate(np.ones(2), np.ones(2)),
    )
    assert Findings.from_json(found.to_json()) == found
    for damaged in ('', '{"rows', '{"other": 1}', '[]'):
        with pytest.raises(ValueError):
            Findings.from_json(damaged)

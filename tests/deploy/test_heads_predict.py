"""Deploy heads against mmdet's ``predict``, on the same feature maps."""

import pytest
import torch

from mmtransxnet.deploy.graphs import ALGORITHMS
from mmtransxnet.utils.errors import UserError
from tests.support.detectors import (
    CONFIGS,
    assert_same_detections,
    collate,
    deploy,
    detector,
    detector_config,
    pictures,
    predict,
)
from tests.support.suite_configs import CONFIGS as ALL_CONFIGS
from tests.support.suite_configs import build, micro_config

ONE = [(96, 128)]
TWO = [(96, 128), (70, 150)]


@pytest.fixture(autouse=True)
def stable_sort(monkeypatch):
    """Equal scores in the order of their indices.

    mmdet sorts without asking for it, and torch's sort is not stable on
    every processor.
    """
    sort = torch.Tensor.sort

    def stable(self, **options):
        return sort(self, **{**options, 'stable': True})

    monkeypatch.setattr(torch.Tensor, 'sort', stable)


def compare(model, sizes, normalised=True):
    """Compare the forms for pictures of these sizes; return the counts."""
    images = pictures(sizes)
    expected = predict(model, images)
    form = deploy(model)
    with torch.no_grad():
        if normalised:
            # Bit by bit the same, so that no close case is decided otherwise.
            inputs = [image.flip(2).permute(2, 0, 1) for image in images]
            data = model.data_preprocessor(dict(inputs=inputs), False)
            features = model.extract_feat(data['inputs'])
            form.features = lambda images, sizes: features
        outputs = form(*collate(images))
    assert_same_detections(outputs, expected, images)
    return outputs[0].tolist()


@pytest.mark.parametrize('sizes', [ONE, TWO], ids=['one', 'two'])
@pytest.mark.parametrize('name', CONFIGS)
def test_many_detections(name, sizes):
    assert min(compare(detector(detector_config(name)), sizes)) > 5


@pytest.mark.parametrize('spread', [0.0, 30.0])
@pytest.mark.parametrize('name', CONFIGS)
def test_tied_scores(name, spread):
    # 30: nearly all scores are 0 or 1.
    model = detector(detector_config(name), spread=spread)
    assert min(compare(model, TWO)) > 5


@pytest.mark.parametrize('name', CONFIGS)
def test_no_detection(name):
    model = detector(detector_config(name, score_thr=1.0))
    assert compare(model, TWO) == [0, 0]


@pytest.mark.parametrize('name', ['MaskRCNN', 'CascadeRCNN'])
def test_no_proposal_in_any_or_in_a_picture(name):
    config = detector_config(name)
    config.model.test_cfg.rpn.min_bbox_size = 1000
    assert compare(detector(config), TWO) == [0, 0]
    config.model.test_cfg.rpn.min_bbox_size = 75
    first, second = compare(detector(config), TWO)
    assert first
    assert second == 0


@pytest.mark.parametrize('name', CONFIGS)
def test_whole_graph_from_pictures(name):
    # The preprocessing, and what is outside of the pictures, included.
    model = detector(detector_config(name))
    compare(model, [(64, 64)], normalised=False)
    compare(model, TWO, normalised=False)


def test_regression_by_class_in_a_cascade():
    config = detector_config('CascadeRCNN')
    for head in config.model.roi_head.bbox_head:
        head.reg_class_agnostic = False
    assert min(compare(detector(config), TWO)) > 5


def test_softmax_scores_and_class_agnostic_masks():
    config = detector_config('MaskRCNN')
    config.model.rpn_head.loss_cls.use_sigmoid = False
    config.model.roi_head.mask_head.class_agnostic = True
    config.model.roi_head.bbox_head.reg_class_agnostic = True
    assert min(compare(detector(config), TWO)) > 5
    config = detector_config('RetinaNet')
    config.model.bbox_head.loss_cls = dict(
        type='CrossEntropyLoss', use_sigmoid=False
    )
    assert min(compare(detector(config), TWO)) > 5


def test_faster_rcnn():
    config = detector_config('MaskRCNN')
    config.model.type = 'FasterRCNN'
    del config.model.roi_head['mask_head']
    del config.model.roi_head['mask_roi_extractor']
    model = detector(config)
    assert len(deploy(model).output_names) == 4
    assert min(compare(model, ONE)) > 5


@pytest.mark.parametrize(
    'path', [c for c in ALL_CONFIGS if 'detection' in c.parts], ids=str
)
def test_every_config_has_a_deploy_form(path):
    with torch.device('meta'):
        config = micro_config(str(path.relative_to('configs').with_suffix('')))
    assert config.model.type in ALGORITHMS
    if path.stem.endswith(('_t', '_digits', '_t_ms_3x')):
        form = deploy(build(config).eval())
        assert form.task == 'detection'


def test_unknown_heads_are_refused_by_name():
    config = detector_config('RetinaNet')
    config.model.bbox_head.type = 'FreeAnchorRetinaHead'
    config.model.bbox_head.pop('loss_cls')
    with pytest.raises(UserError, match='FreeAnchorRetinaHead'):
        deploy(detector(config))

"""Results as plain data, in files, in batches."""

import copy
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco

from mmtransxnet.apis import Inferencer
from mmtransxnet.apis.inference import dataset_meta
from mmtransxnet.deploy import runtime
from mmtransxnet.utils.errors import UserError
from tests.apis.conftest import TASKS
from tests.support.tiny_configs import DIGITS


@pytest.fixture(scope='module')
def alone(models, pictures):
    """Results one by one."""
    return {task: list(models[task](pictures)) for task in TASKS}


def good(results):
    return [result for result in results if result.error is None]


@pytest.mark.parametrize(('count', 'own'), [(10, True), (80, False)])
def test_colours_of_other_classes_are_not_used(count, own):
    """CocoDataset stores the colours of COCO's classes for any classes."""
    colours = [(0, 0, i) for i in range(80)]
    names = tuple(map(str, range(count)))
    stored = {'CLASSES': names, 'PALETTE': colours}
    meta = dataset_meta({'meta': {'dataset_meta': stored}}, Config())
    assert meta['classes'] == names
    expected = runtime.colours(count) if own else colours
    assert meta['palette'] == expected


def test_classification(alone):
    result = good(alone['classifier'])[0]
    data = json.loads(json.dumps(result.to_dict(4)))
    (entry,) = data.pop('results')
    assert data == {
        'id': 4,
        'file_name': str(result.source),
        'width': 128,
        'height': 96,
    }
    scores = result.prediction.pred_score
    assert entry['scores'] == pytest.approx(scores.tolist(), abs=1e-6)
    assert entry['category_id'] == int(scores.argmax())
    assert entry['name'] == DIGITS[entry['category_id']]
    assert entry['score'] == max(entry['scores'])
    assert entry['image_id'] == 4


def test_detection(alone):
    result = good(alone['detector'])[1]
    found = result.prediction.pred_instances
    entries = result.to_dict()['results']
    assert len(entries) == len(found) > 0
    assert result.to_dict()['width'] == 96
    for index, entry in enumerate(entries):
        x1, y1, x2, y2 = found.bboxes[index].tolist()
        expected = [x1, y1, x2 - x1, y2 - y1]
        assert entry['bbox'] == pytest.approx(expected, abs=1e-3)
        assert entry['score'] == pytest.approx(float(found.scores[index]))
        assert entry['name'] == DIGITS[entry['category_id']]
        mask = coco.decode(entry['segmentation'])
        assert np.array_equal(mask, found.masks[index].numpy())
    assert any(coco.area(entry['segmentation']) for entry in entries)


def test_threshold_of_detections(tiny, models, alone):
    result = good(alone['detector'])[1]
    sample = copy.deepcopy(result.prediction)
    found = sample.pred_instances
    found.scores = torch.linspace(1, 0.1, len(found))
    info = replace(result.info, score_thr=0.5)
    some = replace(result, prediction=sample, info=info)
    expected = int((found.scores >= 0.5).sum())
    assert 0 < len(some.to_dict()['results']) == expected < len(found)


def test_segmentation(models, pictures, tmp_path):
    model = models['segmentor']
    file = tmp_path / 'out/r.json'
    results = good(model(pictures, json=file))
    content = json.loads(file.read_text())
    for result, image in zip(results, content['images'], strict=True):
        picture = Image.open(file.parent / image['label_map'])
        labels = result.prediction.pred_sem_seg.data[0].numpy()
        assert np.array_equal(np.asarray(picture), labels)
        palette = np.array(picture.getpalette()).reshape(-1, 3)
        expected = np.array(model.info.palette)
        assert np.array_equal(palette[: len(expected)], expected)
        entries = result.to_dict()['results']
        for entry in entries:
            count = int((labels == entry['category_id']).sum())
            assert entry['pixels'] == count > 0
            assert entry['name'] == model.info.classes[entry['category_id']]
        assert sum(entry['pixels'] for entry in entries) == labels.size


@pytest.mark.parametrize('task', TASKS)
def test_batches_of_unequal_pictures_equal_one_by_one(
    models, pictures, alone, task
):
    together = list(models[task](pictures, batch_size=3))
    assert len(together) == len(alone[task]) == 8
    for one, two in zip(alone[task], together, strict=True):
        assert one.source == two.source
        assert one.error == two.error
        if one.error is not None:
            continue
        if task == 'segmentor':
            first, second = (
                r.prediction.pred_sem_seg.data for r in (one, two)
            )
            assert (first == second).float().mean() > 0.999
            assert 'seg_logits' not in two.prediction
            continue
        first, second = (r.to_dict()['results'] for r in (one, two))
        assert_close(first, second)


def test_batches_are_used(models, pictures, monkeypatch):
    library = models['segmentor']._library
    sizes = []
    forward = library.forward

    def counted(data):
        sizes.append(len(data['inputs']))
        return forward(data)

    monkeypatch.setattr(library, 'forward', counted)
    list(models['segmentor'](pictures, batch_size=3))
    # 96 x 128 three times, 128 x 96 twice, 100 x 128 and 64 x 64.
    assert sorted(sizes) == [1, 1, 2, 3]


def test_no_picture_is_padded_more_than_alone(models, pictures, monkeypatch):
    """Padding would change what the detector sees near the edge."""
    library = models['detector']._library
    batches = []
    forward = library.forward

    def noted(data):
        shapes = [image.shape[-2:] for image in data['inputs']]
        batches.append([(-(-h // 32), -(-w // 32)) for h, w in shapes])
        return forward(data)

    monkeypatch.setattr(library, 'forward', noted)
    list(models['detector'](pictures, batch_size=4))
    assert max(map(len, batches)) > 1
    assert len({shape for batch in batches for shape in batch}) > 1
    assert all(len(set(batch)) == 1 for batch in batches)


def test_an_error_in_a_batch_is_one_pictures(models, pictures, monkeypatch):
    model = models['classifier']
    forward = model._library.forward
    bad = model._library.pipeline(
        {
            'img': cv2.imread(str(pictures / '2.png')),
            'img_shape': (96, 128),
            'ori_shape': (96, 128),
        }
    )['inputs']

    def failing(data):
        if any(torch.equal(image, bad) for image in data['inputs']):
            raise RuntimeError('this one')
        return forward(data)

    monkeypatch.setattr(model._library, 'forward', failing)
    told = []
    monkeypatch.setattr(
        'mmtransxnet.apis.predictor.print_log',
        lambda text, *_: told.append(text),
    )
    results = list(model(pictures, batch_size=4))
    failed = {r.source.name: r.error for r in results if r.error is not None}
    assert failed.keys() == {'2.png', '3.torn.png'}
    assert failed['2.png'] == 'this one'
    assert len(told) == 1
    assert 'failed (RuntimeError: this one' in told[0]
    assert 'predicted one by one' in told[0]


@pytest.mark.parametrize('task', TASKS)
def test_not_a_number_is_an_error(tiny, pictures, tmp_path, task, monkeypatch):
    model = Inferencer(*tiny[task], 'cpu')
    for name, parameter in model.model.named_parameters():
        if not name.startswith('rpn'):
            parameter.data.fill_(float('nan'))
    # mmdet drops scores that are not numbers with those that are low.
    if task == 'detector':
        forward = model._library.forward

        def spoilt(data):
            samples = forward(data)
            samples[0].pred_instances = InstanceData(
                bboxes=torch.full((1, 4), float('nan')),
                scores=torch.ones(1),
                labels=torch.zeros(1, dtype=torch.int64),
            )
            return samples

        monkeypatch.setattr(model._library, 'forward', spoilt)
    file = tmp_path / 'r.json'
    (result,) = model(pictures / '0.png', json=file)
    assert 'not finite' in result.error
    content = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert content['images'] == content['results'] == []
    assert content['failed'] == [
        {'file_name': str(pictures / '0.png'), 'error': result.error}
    ]


def test_json(models, pictures, tmp_path):
    file = tmp_path / 'r.json'
    results = models['classifier'](pictures, json=file)
    next(results)
    assert list(tmp_path.iterdir()) == []  # written at the end
    rest = list(results)
    content = json.loads(file.read_text())
    assert [*content] == ['task', 'classes', 'images', 'results', 'failed']
    assert content['task'] == 'classification'
    assert content['classes'] == DIGITS
    assert [image['id'] for image in content['images']] == [*range(7)]
    assert [r['image_id'] for r in content['results']] == [*range(7)]
    (failed,) = content['failed']
    assert failed['file_name'] == str(pictures / '3.torn.png')
    assert failed['error'] in [result.error for result in rest]
    assert [path.name for path in tmp_path.iterdir()] == ['r.json']


def test_lines_are_written_as_they_come(models, pictures, tmp_path):
    file = tmp_path / 'r.jsonl'
    for count, result in enumerate(models['classifier'](pictures, json=file)):
        lines = file.read_text().splitlines()
        entry = json.loads(lines[-1])
        assert len(lines) == count + 1
        assert entry['file_name'] == str(result.source)
        assert ('error' in entry) == (result.error is not None)
    ids = [json.loads(line).get('id') for line in lines]
    assert ids == [0, 1, 2, 3, None, 4, 5, 6]


def test_an_interrupted_run_keeps_its_results(models, pictures, tmp_path):
    file = tmp_path / 'r.json'
    results = models['classifier'](pictures, json=file)
    next(results)
    next(results)
    results.close()  # Ctrl-C
    assert len(json.loads(file.read_text())['images']) == 2


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (96, 64)
    )
    for value in (0, 120, 240):
        writer.write(np.full((64, 96, 3), value, 'uint8'))
    writer.release()
    return path


@pytest.mark.parametrize('task', TASKS)
def test_a_video_has_a_line_for_each_frame(models, video, tmp_path, task):
    file = tmp_path / 'r.jsonl'
    list(models[task](video, json=file, batch_size=2))
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert [entry['frame'] for entry in entries] == [0, 1, 2]
    assert {entry['width'] for entry in entries} == {96}
    if task == 'segmentor':
        maps = [tmp_path / entry['label_map'] for entry in entries]
        assert len(set(maps)) == 3
        assert all(path.is_file() for path in maps)


def test_bad_arguments_are_refused(models, pictures, tmp_path):
    model = models['classifier']
    with pytest.raises(UserError, match='ends in'):
        model(pictures, json=tmp_path / 'r.txt')
    with pytest.raises(UserError, match='at least 1'):
        model(pictures, batch_size=0)
    with pytest.raises(UserError, match='cannot be written'):
        list(model(pictures, json=pictures / '0.png/r.jsonl'))
    before = (pictures / '0.png').read_bytes()
    with pytest.raises(UserError, match='would overwrite'):
        model(pictures, out_dir=pictures)
    assert (pictures / '0.png').read_bytes() == before


def assert_close(first, second, atol=2e-3):
    """Entries that are equal but for rounding."""
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if name == 'segmentation':
                assert value['size'] == two[name]['size']
                overlap = coco.iou([value], [two[name]], [0]).item()
                assert overlap > 0.95 or not coco.area(value)
            elif name in ('bbox', 'score', 'scores', 'share'):
                assert value == pytest.approx(two[name], abs=atol)
            elif name == 'pixels':
                assert value == pytest.approx(two[name], rel=0.01, abs=2)
            else:
                assert value == two[name], name

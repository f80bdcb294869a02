"""Models of the page: predictions, drawings, data, descriptions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.analysis.drawing import draw_activations
from mmtransxnet.deploy import runtime
from mmtransxnet.engine.checks.pictures import check_picture
from mmtransxnet.utils.errors import UserError
from mmtransxnet.web import page
from mmtransxnet.web.enlarge import enlarged
from mmtransxnet.web.legend import legend
from mmtransxnet.web.models import (
    Prediction,
    TrainedModel,
    open_models,
)
from mmtransxnet.web.pictures import Upload, check_upload, find_examples
from tests.support.corrupt_files import bomb
from tests.support.tiny_configs import write_checkpoints
from tests.web.conftest import pair


def upload(files):
    return Upload(str(files / 'picture.png'), 'picture.png')


@pytest.fixture(scope='module')
def trained(files, digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DIGITS_ROOT', str(digits))
        names = ('classifier', 'detector', 'segmentor')
        return open_models([word for n in names for word in pair(files, n)])


@pytest.mark.parametrize('name', ['classifier', 'detector', 'segmentor'])
def test_trained_model(trained, files, name):
    """The data sample of the library, drawn and as data."""
    model = trained[name]
    found = model.predict(upload(files))
    assert isinstance(model, TrainedModel)
    sample = model.inferencer.predict(found.pixels[..., ::-1].copy())
    data = json.loads(json.dumps(found.to_dict(0)))
    assert data['task'] == model.task
    assert data['images'] == [
        {'id': 0, 'file_name': 'picture.png', 'width': 96, 'height': 96}
    ]
    if name == 'classifier':
        (entry,) = data['results']
        scores = sample.pred_score.tolist()
        assert entry['scores'] == pytest.approx(scores, abs=1e-5)
    elif name == 'detector':
        expected = sample.pred_instances
        assert len(expected) == len(data['results']) > 0
        scores = [entry['score'] for entry in data['results']]
        assert scores == pytest.approx(expected.scores.tolist(), abs=1e-5)
        masks = found.above(0).masks
        assert np.array_equal(masks, expected.masks.numpy())
    else:
        labels = sample.pred_sem_seg.data[0].numpy()
        assert np.array_equal(found.result.labels, labels)
        shares = [entry['share'] for entry in data['results']]
        assert sum(shares) == pytest.approx(1)
    drawn = np.asarray(found.draw(0))
    assert drawn.shape == found.pixels.shape
    assert not np.array_equal(drawn, found.pixels)
    assert '96 x 96 pixels' in legend(found, 0)


def test_exported_model_gives_what_predict_py_gives(files):
    (model,) = open_models([str(files / 'exported')]).values()
    found = model.predict(upload(files))
    own = runtime.load(files / 'exported')
    result = own(files / 'picture.png')
    entries = runtime.as_json(result.above(0.4), own.classes)
    assert found.to_dict(0.4)['results'] == entries
    drawn = own.draw(files / 'picture.png', result, 0.4)
    assert found.draw(0.4).tobytes() == drawn.tobytes()


def test_small_pictures_are_drawn_enlarged(trained, files):
    """Text and lines of a fixed size would hide the objects."""
    for name in ('classifier', 'detector', 'segmentor'):
        found = trained[name].predict(upload(files))
        large = enlarged(found)
        assert large.draw(0).size == (4 * 96, 4 * 96)
        assert large.result.size == (4 * 96, 4 * 96)
        if name == 'detector':
            assert np.allclose(large.result.boxes, 4 * found.result.boxes)
            masks = np.kron(found.result.masks, np.ones((1, 4, 4), bool))
            assert np.array_equal(large.result.masks, masks)
        elif name == 'segmentor':
            labels = np.kron(found.result.labels, np.ones((4, 4), np.uint8))
            assert np.array_equal(large.result.labels, labels)
    wide = replace(found, pixels=np.zeros((20, 201, 3), np.uint8))
    assert enlarged(wide) is wide


def test_score_chooses_objects(files):
    (model,) = open_models([str(files / 'exported')]).values()
    found = model.predict(upload(files))
    low, high = sorted(found.result.scores.tolist())
    assert len(found.to_dict(low)['results']) == 2
    assert len(found.to_dict((low + high) / 2)['results']) == 1
    assert '2 objects' in legend(found, low)
    assert '1 object ' in legend(found, (low + high) / 2)


def test_equal_names_are_told_apart(files):
    folder = str(files / 'exported')
    assert list(open_models([folder, folder])) == ['exported', 'exported (2)']


@pytest.mark.parametrize(
    'names', [['detector.py'], ['detector.py', 'exported'], ['.']]
)
def test_arguments_that_name_no_model(files, names):
    with pytest.raises(UserError) as error:
        open_models([str(files / name) for name in names])
    assert str(files / names[0]) in str(error.value)


def test_names_are_escaped():
    class Model:
        classes, palette = ['<script>'], [[0, 0, 0]]

    result = runtime.Classification((1, 1), np.ones(1, np.float32))
    pixels = np.zeros((1, 1, 3), np.uint8)
    found = Prediction(Model(), 'a', pixels, result, 0)
    assert '<script>' not in legend(found, 0)
    assert '&lt;script&gt;' in legend(found, 0)


def test_values_that_are_not_finite(files, digits, monkeypatch):
    monkeypatch.setenv('DIGITS_ROOT', str(digits))
    (model,) = open_models(pair(files, 'classifier')).values()
    model.inferencer.model.head.fc.bias.data[0] = float('nan')
    with pytest.raises(ValueError, match='not finite'):
        model.predict(upload(files))


def test_checks_of_a_picture(tmp_path):
    Image.new('RGB', (50, 40)).save(tmp_path / 'a.png')
    stored = Upload(str(tmp_path / 'a.png'), 'my.png')
    check_upload(stored, 2000)
    with pytest.raises(UserError, match=r'^my.png has 50 x 40 .* 1999$'):
        check_upload(stored, 1999)
    for content in (b'', b'GIF89a', bomb()):
        (tmp_path / 'a.png').write_bytes(content)
        with pytest.raises(UserError, match=r'^my\.png ') as error:
            check_upload(stored, 10**6)
        assert str(tmp_path) not in str(error.value)


def test_format_of_opencv_alone_is_refused(tmp_path):
    """OpenCV would decode any size before it says which."""
    file = tmp_path / 'a.pfm'
    file.write_bytes(b'PF\n1 1\n-1.0\n' + bytes(12))
    assert check_picture(str(file)) == (1, 1)
    with pytest.raises(UserError, match='cannot be decoded'):
        check_upload(Upload(str(file), 'a.pfm'), 10**6)


def test_examples(files, tmp_path):
    photographs = find_examples([], tmp_path.with_name('photographs'))
    assert [path.stem for path in photographs][:2] == ['astronaut', 'chelsea']
    for number in range(14):
        Image.new('RGB', (8, 8)).save(tmp_path / f'{number:02}.png')
    found = find_examples([tmp_path], tmp_path / 'copies')
    assert [path.name for path in found] == [
        f'{number:02}.png' for number in range(12)
    ]
    assert all(path.is_file() for path in found)
    with pytest.raises(UserError, match='no picture'):
        find_examples([files / 'exported'], tmp_path)


@pytest.mark.parametrize(('stages', 'shown'), [(1, [0]), (2, [0, 1])])
def test_activation_of_few_stages(files, digits, monkeypatch, stages, shown):
    """A model that runs one stage has no other one to show."""
    monkeypatch.setenv('DIGITS_ROOT', str(digits))
    name = f'stages{stages}'
    (files / f'{name}.py').write_text(
        "_base_ = 'classifier.py'\n"
        f'model = dict(backbone=dict(out_indices=({stages - 1},)), '
        f'head=dict(in_channels={16 * stages}))\n'
    )
    path = write_checkpoints(files, {name: files / f'{name}.py'})[name]
    models = open_models([str(files / f'{name}.py'), str(path)])
    drawn = []

    def draw(image, activations, *arguments):
        drawn.extend(found.stage for found in activations)
        draw_activations(image, activations, *arguments)

    monkeypatch.setattr(page, 'draw_activations', draw)
    actions = page.Actions(models, page.Settings())
    assert actions.activation(models[name].predict(upload(files))).width > 100
    assert drawn == shown

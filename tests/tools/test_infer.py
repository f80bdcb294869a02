"""Predict and draw files, folders, videos and cameras, three tasks."""

import json
import resource
import shutil

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtransxnet.apis import Inferencer
from mmtransxnet.engine import UserError
from tests.support import corrupt_files
from tests.support.processes import free_port
from tests.support.tiny_configs import DIGITS, write_checkpoints
from tests.support.tools import command, environment, run

TASKS = ['classifier', 'detector', 'segmentor']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory, configs):
    """A checkpoint of each tiny model, as the Runner writes it."""
    folder = tmp_path_factory.mktemp('checkpoints')
    return write_checkpoints(folder, configs)


@pytest.fixture(scope='module')
def models(configs, checkpoints):
    return {
        task: Inferencer(configs[task], checkpoints[task], 'cpu', 0.0)
        for task in TASKS
    }


@pytest.fixture
def pictures(tmp_path):
    """Two folders with an equal file name, a broken and a foreign file."""
    folder = tmp_path / 'pictures'
    for name, colour in (('a/x.png', (0, 0, 255)), ('b/x.png', (255, 0, 0))):
        image = np.full((96, 128, 3), colour, 'uint8')
        mmcv.imwrite(image, str(folder / name))
    whole = (folder / 'a/x.png').read_bytes()
    (folder / 'b/torn.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (128, 96)
    )
    for value in (0, 120, 240):
        writer.write(np.full((96, 128, 3), value, 'uint8'))
    writer.release()
    return path


def frames(path):
    capture = cv2.VideoCapture(str(path))
    images = []
    while (read := capture.read())[0]:
        images.append(read[1])
    return images


@pytest.mark.parametrize('task', TASKS)
def test_folder(models, pictures, tmp_path, task):
    out = tmp_path / 'out'
    results = list(models[task](pictures, out))
    good = [r for r in results if r.error is None]
    (bad,) = [r for r in results if r.error is not None]
    assert bad.source == pictures / 'b/torn.png'
    assert 'truncated' in bad.error
    assert {r.drawing for r in good} == {out / 'a/x.png', out / 'b/x.png'}
    assert all(mmcv.imread(str(r.drawing)).shape == (96, 128, 3) for r in good)
    assert all(r.prediction is not None for r in good)


def test_drawn_classification_keeps_colours(models, pictures, tmp_path):
    model = models['classifier']
    (result,) = model(pictures / 'a/x.png', tmp_path / 'out')
    drawn = mmcv.imread(str(result.drawing))
    assert drawn[-1, -1].tolist() == [0, 0, 255]
    # And there is a text.
    assert (drawn != drawn[-1, -1]).any()


def test_prediction_sees_the_colours_of_training(models, pictures):
    """As the pipeline that reads the file itself."""
    model = models['classifier']
    (result,) = model(pictures / 'a/x.png')
    assert result.drawing is None
    library = model._library
    (batch,) = library.preprocess([str(pictures / 'a/x.png')])
    (expected,) = library.forward(batch)
    assert torch.equal(result.prediction.pred_score, expected.pred_score)


def test_drawn_detections_depend_on_the_score(
    configs, checkpoints, models, pictures
):
    image = mmcv.imread(str(pictures / 'a/x.png'))
    everything = models['detector']
    prediction = everything.predict(image)
    assert len(prediction.pred_instances) > 0
    drawn = everything.draw(image, prediction)
    assert not np.array_equal(drawn, image)
    nothing = Inferencer(
        configs['detector'], checkpoints['detector'], 'cpu', 1.1
    )
    assert np.array_equal(nothing.draw(image, prediction), image)


def test_detections_have_the_names_of_the_config(models):
    visualizer = models['detector']._library.visualizer
    assert list(visualizer.dataset_meta['classes']) == DIGITS


def test_drawn_segmentation_has_the_colours_of_the_config(
    configs, models, pictures
):
    model = models['segmentor']
    image = mmcv.imread(str(pictures / 'a/x.png'))
    prediction = model.predict(image)
    drawn = model.draw(image, prediction)[..., ::-1]
    meta = Config.fromfile(configs['segmentor']).metainfo
    labels = prediction.pred_sem_seg.data[0].numpy()
    colours = np.array(meta.palette)[labels]
    expected = 0.2 * image[..., ::-1] + 0.8 * colours
    # Names of classes are written over some of it.
    right = (np.abs(drawn - expected) < 3).all(-1)
    assert right.mean() > 0.5


@pytest.mark.parametrize('task', TASKS)
def test_folded(models, configs, checkpoints, task):
    """The inference form answers as the model does."""
    folded = Inferencer(configs[task], checkpoints[task], 'cpu', fold=True)
    blocks = [type(m).__name__ for m in folded.model.backbone.modules()]
    assert 'FoldedBlock' in blocks
    assert 'FoldedBlock' not in [
        type(m).__name__ for m in models[task].model.backbone.modules()
    ]
    image = np.random.randint(0, 256, (96, 128, 3), 'uint8')
    answers = [one.predict(image) for one in (models[task], folded)]
    read = dict(
        classifier=lambda sample: sample.pred_score,
        detector=lambda sample: sample.pred_instances.scores,
        segmentor=lambda sample: sample.seg_logits.data,
    )[task]
    torch.testing.assert_close(*map(read, answers), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('task', TASKS)
def test_hostile_pictures_do_not_stop_the_others(models, tmp_path, task):
    """A bomb, 1 x 20000 pixels and what else is bad, and 1 x 1."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, (content, _) in corrupt_files.BAD.items():
        (folder / f'{name}.png').write_bytes(content)
    mmcv.imwrite(np.zeros((1, 1, 3), 'uint8'), str(folder / 'x.png'))
    mmcv.imwrite(np.zeros((32, 64, 3), 'uint8'), str(folder / 'z.png'))
    declared = 60_000 * 60_000 * 3  # bytes of the bomb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    *failed, tiny, good = models[task](folder, tmp_path / 'out')
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert good.error is None
    # What is resized can be predicted; mmseg cannot draw a single pixel.
    told = {
        'classifier': 'images of at least 32 x 32 pixels, got 1 x 1',
        'segmentor': 'the libraries cannot predict or draw it (IndexError',
    }
    assert told.get(task, 'None') in str(tiny.error)
    assert {result.source.stem for result in failed} == {*corrupt_files.BAD}
    for result in failed:
        assert str(result.source) in result.error
        assert corrupt_files.BAD[result.source.stem][1] in result.error
    assert grown * 1024 < declared / 10


@pytest.mark.parametrize('task', TASKS)
def test_video(models, video, tmp_path, task):
    results = list(models[task](video, tmp_path / 'out'))
    assert [r.frame for r in results] == [0, 1, 2]
    assert {r.drawing for r in results} == {tmp_path / 'out/clip.avi.mp4'}
    drawn = frames(tmp_path / 'out/clip.avi.mp4')
    assert len(drawn) == 3
    assert drawn[0].shape == (96, 128, 3)
    if task == 'classifier':
        values = [image[-9, -9, 0] for image in drawn]
        assert np.allclose(values, (0, 120, 240), atol=10)


def test_camera_is_written_until_it_is_stopped(
    models, video, tmp_path, monkeypatch
):
    opened = cv2.VideoCapture
    monkeypatch.setattr(
        cv2,
        'VideoCapture',
        lambda origin: opened(str(video) if origin == 0 else origin),
    )
    results = models['classifier'](0, tmp_path / 'out')
    assert [next(results).frame, next(results).frame] == [0, 1]
    results.close()  # Ctrl-C
    assert len(frames(tmp_path / 'out/webcam_0.mp4')) == 2


def test_what_is_not_there_is_told(models, tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    named = [tmp_path / 'gone.jpg', tmp_path / 'broken.mp4', 99]
    results = list(models['classifier'](named))
    assert [r.source for r in results] == named
    assert 'gone.jpg' in results[0].error
    assert 'cannot be opened' in results[1].error
    assert 'camera 99 cannot be opened' in results[2].error


def test_equal_names_keep_their_folders(models, pictures, tmp_path):
    named = [pictures / name for name in ('a/x.png', 'b/x.png')]
    out = tmp_path / 'out'
    drawings = [r.drawing for r in models['classifier'](named, out)]
    assert drawings == [out / 'a/x.png', out / 'b/x.png']


def test_equal_names_do_not_overwrite(models, pictures, tmp_path):
    shutil.copy(pictures / 'a/x.png', pictures / 'a/y.bmp')
    shutil.copy(pictures / 'a/x.png', pictures / 'a/y.bmp.png')
    named = [pictures / name for name in ('a/x.png', 'b/x.png')]
    for inputs, count in (
        (named, 2),
        ([pictures / 'a', pictures / 'b/x.png'], 4),
        ([*named, named[0]], 2),
    ):
        results = list(models['classifier'](inputs, tmp_path / 'out'))
        drawings = {r.drawing for r in results}
        assert len(results) == len(drawings) == count
        assert all(drawing.is_file() for drawing in drawings)


def scope():
    """Name of the scope that registries look into."""
    return getattr(DefaultScope.get_current_instance(), 'scope_name', None)


def test_models_of_all_tasks_live_in_one_process(
    models, configs, checkpoints, pictures
):
    """Built in another order than the fixture's, on the scopes it left."""
    before = scope()
    image = mmcv.imread(str(pictures / 'a/x.png'))
    for task in reversed(TASKS):
        again = Inferencer(configs[task], checkpoints[task], 'cpu')
        assert type(again.predict(image)) is type(models[task].predict(image))
    assert scope() == before


def test_published_classifier_by_its_name(
    configs, checkpoints, models, pictures, tmp_path, monkeypatch
):
    state = torch.load(checkpoints['classifier'])['state_dict']
    renamed = {
        name.removeprefix('backbone.')
        .replace('norm6.', 'classifier.0.')
        .replace('head.fc.', 'classifier.2.'): value
        for name, value in state.items()
    }
    weight = renamed['classifier.2.weight']
    renamed['classifier.2.weight'] = weight[..., None, None]
    torch.save({'state_dict': renamed}, tmp_path / 'transx-t.pth.tar')
    monkeypatch.setenv('TRANSXNET_WEIGHTS', str(tmp_path))
    model = Inferencer(configs['classifier'], 'transxnet://t', 'cpu')
    image = mmcv.imread(str(pictures / 'a/x.png'))
    expected = models['classifier'].predict(image).pred_score
    assert torch.equal(model.predict(image).pred_score, expected)


def test_wrong_checkpoints_are_refused(configs, checkpoints, tmp_path):
    with pytest.raises(UserError, match='does not fit'):
        Inferencer(configs['detector'], checkpoints['classifier'])
    with pytest.raises(UserError, match='is not a file'):
        Inferencer(configs['detector'], tmp_path / 'none.pth')


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_malicious_checkpoint_does_not_run(configs, tmp_path):
    torch.save({'state_dict': Malicious(tmp_path / 'ran')}, tmp_path / 'c.pth')
    with pytest.raises(UserError, match='cannot be read'):
        Inferencer(configs['classifier'], tmp_path / 'c.pth')
    assert not (tmp_path / 'ran').exists()


def test_tool_goes_on_and_fails_in_the_end(
    tool, configs, checkpoints, pictures, tmp_path
):
    status, log = tool(
        'infer.py',
        configs['classifier'],
        checkpoints['classifier'],
        pictures,
        '--out',
        tmp_path / 'out',
        DISPLAY='',
    )
    assert status == 1, log
    assert 'Traceback' not in log
    assert '2 drawn, 1 failed' in log
    assert f'error: failed: {pictures / "b/torn.png"}' in log
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 2


def test_tool_tells_errors_in_a_line(tool, configs, tmp_path):
    status, log = tool(
        'infer.py', configs['classifier'], 'none.pth', 'x', '--out', tmp_path
    )
    assert status == 2
    assert 'error: checkpoint none.pth is not a file' in log
    assert 'Traceback' not in log


def test_tool_writes_json_with_two_processes(
    configs, checkpoints, pictures, tmp_path
):
    """The script of several processes, with a picture that fails."""
    file = tmp_path / 'r.json'
    words = command(
        'dist_infer.sh', configs['classifier'], checkpoints['classifier'], 2,
        pictures, '--json', file, '--batch-size', 2,
    )  # fmt: skip
    done = run(words, env=environment(PORT=free_port()))
    log = done.stdout + done.stderr
    assert done.returncode == 1, log
    assert 'failed: ' + str(pictures / 'b/torn.png') in log
    content = json.loads(file.read_text())
    assert [image['file_name'] for image in content['images']] == [
        str(pictures / name) for name in ('a/x.png', 'b/x.png')
    ]
    assert len(content['failed']) == 1


@pytest.mark.parametrize(
    ('flags', 'told'),
    [
        ((), 'name a folder for drawings'),
        (('--out', 'x', '--launcher', 'pytorch'), '--launcher needs a --json'),
        (('--json', 'x/r.txt'), 'ends in'),
    ],
)
def test_tool_refuses(tool, configs, checkpoints, tmp_path, flags, told):
    flags = [flag.replace('x', str(tmp_path)) for flag in flags]
    status, log = tool(
        'infer.py', configs['classifier'], checkpoints['classifier'],
        tmp_path, *flags,
    )  # fmt: skip
    assert status == 2
    assert told in log
    assert 'Traceback' not in log

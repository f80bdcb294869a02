"""Exported folders, run as users run them."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from mmtransxnet.deploy import runtime
from tests.support import corrupt_files
from tests.support.exported import PALETTE, disc, write_exported
from tests.support.tools import run

TASKS = ('classification', 'detection', 'segmentation')

# Stands for an environment in which these are not installed.
BLOCKED = """
import sys

class Blocked:
    names = {'torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'mmseg',
             'mmpretrain', 'mmtransxnet', 'cv2', 'pycocotools', 'scipy'}
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in self.names:
            raise ImportError(f'{name} is blocked')

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('exported')
    formats = ('onnx', 'openvino')
    return {task: write_exported(root / task, task, formats) for task in TASKS}


def red(value, height=60, width=90):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = value
    return pixels


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_classifies(folders, engine):
    model = runtime.load(folders['classification'], engine)
    assert model.engine == engine
    result = model(red(200))
    assert result.label == 0
    assert result.score == pytest.approx(result.scores[0])
    assert result.scores.sum() == pytest.approx(1, abs=1e-5)
    assert result.size == (60, 90)


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_detects_in_the_original_pixels(folders, engine):
    model = runtime.load(folders['detection'], engine)
    pixels = red(204, 100, 140)
    result = model(pixels)
    assert len(result) == 2
    expected = [[35, 25, 105, 75], [0, 0, 70, 100]]
    assert np.allclose(result.boxes, expected, atol=1e-3)
    assert np.allclose(result.scores, [0.8, 0.4], atol=1e-4)
    assert result.labels.tolist() == [0, 1]
    assert result.masks.shape == (2, 100, 140)
    # Half of the disc's probabilities are above 0.5 in a circle.
    inside = result.masks[0, 25:75, 35:105].mean()
    assert inside == pytest.approx((disc(280) >= 0.5).mean(), abs=0.02)
    assert not result.masks[0, :, :34].any()
    above = result.above(0.5)
    assert len(above) == len(above.masks) == 1
    entries = runtime.as_json(result, model.classes, 7)
    assert entries[0]['bbox'] == pytest.approx([35, 25, 70, 50], abs=1e-2)
    decoded = coco.decode(entries[1]['segmentation'])
    assert np.array_equal(decoded, result.masks[1])
    assert {entry['image_id'] for entry in entries} == {7}


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_segments_in_the_original_pixels(folders, engine):
    model = runtime.load(folders['segmentation'], engine)
    pixels = np.zeros((50, 70, 3), np.uint8)
    pixels[:, 35:] = 255
    result = model(pixels)
    assert result.labels.dtype == np.uint8
    assert result.labels.shape == result.scores.shape == (50, 70)
    assert not result.labels[:, :34].any()
    assert result.labels[:, 36:].all()


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('batch', [None, 3])
def test_results_do_not_depend_on_the_batch(tmp_path, task, batch):
    model = runtime.load(write_exported(tmp_path, task, batch=batch))
    draw = np.random.default_rng(0)
    shapes = [(40, 60), (60, 40), (40, 60), (41, 60), (40, 60), (64, 96)]
    pictures = [draw.integers(0, 256, (*s, 3), 'uint8') for s in shapes]
    alone = [model(picture) for picture in pictures]
    for size in (2, 8):
        together = model(pictures, batch_size=size)
        assert [t.size for t in together] == shapes
        for first, second in zip(alone, together, strict=True):
            assert np.array_equal(first.scores, second.scores)
            if task == 'detection':
                assert np.array_equal(first.masks, second.masks)
                assert np.array_equal(first.boxes, second.boxes)


@pytest.mark.parametrize('task', TASKS)
def test_a_fixed_size(tmp_path, task):
    size = (64, 64)
    folder = write_exported(tmp_path, task, batch=1, size=size)
    model = runtime.load(folder)
    for shape in ((30, 50), (200, 100), (64, 64)):
        result = model(red(102, *shape))
        assert result.size == shape
        if task == 'detection':
            assert np.allclose(result.scores, [0.4, 0.2], atol=1e-3)
            assert np.allclose(result.boxes[1, 2:], [shape[1] / 2, shape[0]])
        if task == 'segmentation':
            assert result.labels.shape == shape


def test_raw_masks(tmp_path):
    masks = {'size': 28, 'threshold': 0.5, 'paste': False}
    model = runtime.load(write_exported(tmp_path, 'detection', masks=masks))
    result = model(red(204))
    assert result.masks is None
    assert np.array_equal(result.raw_masks[0], disc())
    entry = runtime.as_json(result, model.classes)[0]
    assert np.allclose(entry['mask'], disc(), atol=1e-6)


@pytest.mark.parametrize('task', TASKS)
def test_draws(folders, task):
    model = runtime.load(folders[task])
    pixels = red(204)
    drawn = model.draw(pixels, model(pixels))
    assert drawn.size == (90, 60)
    assert not np.array_equal(np.asarray(drawn), pixels)
    assert np.array_equal(pixels, red(204))


def test_draws_objects_above_the_threshold(folders):
    model = runtime.load(folders['detection'])
    pixels = red(204)
    result = model(pixels)
    drawn = model.draw(pixels, result, score_thr=0.9)
    assert np.array_equal(np.asarray(drawn), pixels)


def test_reads_files_images_and_lists(folders, tmp_path):
    model = runtime.load(folders['classification'])
    Image.fromarray(red(9)).save(tmp_path / 'a.png')
    sources = [tmp_path / 'a.png', str(tmp_path / 'a.png'), red(9)]
    sources.append(Image.fromarray(red(9)))
    results = model(sources, batch_size=4)
    assert len({result.score for result in results}) == 1
    assert model([]) == []


# ---- Programs for constant shapes


def shapes_of(*shape):
    return (('images', shape),)


def test_shapes_that_come_often_get_a_program():
    compiled = []

    def compile_program(shapes):
        compiled.append(shapes)
        return shapes

    programs = runtime.FixedPrograms(compile_program, enough=2.0)
    often, rare = shapes_of(1, 64, 64, 3), shapes_of(1, 64, 96, 3)
    programs.add(rare, 0.5)
    for _ in range(4):
        assert programs.get(often) is None
        programs.add(often, 0.5)
    assert programs.get(often) is None  # not more than enough
    programs.add(often, 0.1)
    assert programs.get(often) == programs.get(often) == often
    assert programs.get(rare) is None
    assert compiled == [often]


def test_shapes_without_a_program_run_as_any_others():
    tried = []

    def compile_program(shapes):
        tried.append(shapes)
        if len(tried) > 1:
            raise RuntimeError('no memory')
        return shapes

    programs = runtime.FixedPrograms(compile_program, enough=1.0)
    good, bad = shapes_of(1, 32, 32, 3), shapes_of(1, 32, 64, 3)
    for shapes in (good, bad):
        programs.add(shapes, 2.0)
    assert programs.get(good) == good
    with pytest.warns(UserWarning, match='no memory'):
        assert programs.get(bad) is None
    programs.add(bad, 100.0)
    assert programs.get(bad) is None
    assert programs.get(good) == good
    assert tried == [good, bad]


def test_the_programs_used_last_are_kept():
    compiled = []
    programs = runtime.FixedPrograms(
        lambda shapes: compiled.append(shapes) or shapes, enough=1.0
    )
    a, b, c = (shapes_of(1, 32, width, 3) for width in (32, 64, 96))
    for shapes in (a, b):
        programs.add(shapes, 2.0)
        assert programs.get(shapes) == shapes
    assert programs.get(a) == a
    programs.add(c, 2.0)
    assert programs.get(c) == c
    assert compiled == [a, b, c]
    assert programs.get(a) == a
    # It has to come often again.
    assert programs.get(b) is None


def test_the_times_of_many_shapes_are_not_kept():
    programs = runtime.FixedPrograms(lambda shapes: shapes, enough=1.0)
    first = shapes_of(1, 32, 31, 3)
    programs.add(first, 2.0)
    for width in range(32, 2000):
        programs.add(shapes_of(1, 32, width, 3), 0.5)
    assert programs.get(first) is None


class Eager(runtime.OpenVino):
    """Compiles a program for a size when it comes the second time."""

    def __init__(self, path, bf16=False):
        super().__init__(path, bf16, worth=0)


@pytest.fixture
def used(monkeypatch):
    """Shapes of the pictures that had a program of their own."""
    used = []
    get = runtime.FixedPrograms.get

    def recorded(programs, shapes):
        program = get(programs, shapes)
        if program is not None:
            used.append(dict(shapes)['images'])
        return program

    monkeypatch.setattr(runtime.FixedPrograms, 'get', recorded)
    return used


@pytest.mark.parametrize('task', TASKS)
def test_programs_of_a_size_give_the_same_results(
    folders, task, used, monkeypatch
):
    model = runtime.load(folders[task], 'openvino')
    monkeypatch.setitem(runtime.ENGINES, 'openvino', Eager)
    fast = runtime.load(folders[task], 'openvino')
    draw = np.random.default_rng(0)
    shapes = [(40, 60), (60, 40), (64, 96)]
    pictures = [draw.integers(0, 256, (*s, 3), 'uint8') for s in shapes]
    expected = model(pictures)
    assert used == []
    # More sizes and batches than programs are kept.
    for batch in (1, 2, 1):
        for picture, result in zip(pictures, expected, strict=True):
            for _ in range(3):
                for got in fast([picture] * batch, batch_size=batch):
                    assert np.allclose(got.scores, result.scores, atol=1e-5)
                    if task == 'detection':
                        assert np.allclose(got.boxes, result.boxes, atol=1e-3)
    assert {shape[0] for shape in used} == {1, 2}


SIGNAL = """
import faulthandler, gc, os, runpy, signal, sys
faulthandler.enable()  # its handlers have a stack of their own
signal.signal(signal.SIGUSR1, lambda *_: print('handled'))
models = [
    runpy.run_path(f'{folder}/predict.py')['load'](folder, 'openvino')
    for folder in sys.argv[1:]
]
while models:
    del models[0]
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_several_models(folders):
    """Given up in the order in which they were loaded."""
    words = [sys.executable, '-c', SIGNAL, *folders.values()]
    done = run(words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['handled'] * len(folders)


def test_a_constant_size_has_no_other_program(tmp_path, used, monkeypatch):
    monkeypatch.setitem(runtime.ENGINES, 'openvino', Eager)
    folder = write_exported(
        tmp_path, 'segmentation', ('openvino',), batch=1, size=(64, 64)
    )
    model = runtime.load(folder)
    for _ in range(3):
        model(red(102))
    assert used == []


# ---- Errors


def broken(folder, **changes):
    path = folder / 'model.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_names_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(runtime.ModelError, match=r'no model\.json\. Name a'):
        runtime.load(tmp_path)
    (tmp_path / 'model.json').write_text('{')
    with pytest.raises(runtime.ModelError, match='cannot be read'):
        runtime.load(tmp_path)
    write_exported(tmp_path, 'classification', format_version=2)
    with pytest.raises(runtime.ModelError, match='format 2'):
        runtime.load(tmp_path)
    write_exported(tmp_path, 'classification')
    with pytest.raises(runtime.ModelError, match='no file for openvino'):
        runtime.load(tmp_path, 'openvino')
    with pytest.raises(runtime.ModelError, match='expected openvino or'):
        runtime.load(tmp_path, 'tensorrt')
    with pytest.raises(runtime.ModelError, match='use OpenVINO'):
        runtime.load(tmp_path, bf16=True)
    steps = [{'step': 'resize', 'scale': [9, 9], 'interpolation': 'area'}]
    settings = json.loads((tmp_path / 'model.json').read_text())['input']
    broken(tmp_path, input={**settings, 'steps': steps})
    with pytest.raises(runtime.ModelError, match='area interpolation'):
        runtime.load(tmp_path)
    broken(tmp_path, input={**settings, 'steps': [{'step': 'rotate'}]})
    with pytest.raises(runtime.ModelError, match="unknown step 'rotate'"):
        runtime.load(tmp_path)


@pytest.mark.parametrize('key', ['input', 'classes', 'files', 'steps'])
def test_an_incomplete_description_is_one_error(tmp_path, key):
    write_exported(tmp_path, 'classification')
    path = tmp_path / 'model.json'
    content = json.loads(path.read_text())
    del (content['input'] if key == 'steps' else content)[key]
    path.write_text(json.dumps(content))
    with pytest.raises(runtime.ModelError, match=f"'{key}'.*export the"):
        runtime.load(tmp_path)


def test_an_engine_error_without_a_message(tmp_path, monkeypatch):
    def fail(path, bf16):
        raise RuntimeError

    fail.package = 'onnxruntime'
    folder = write_exported(tmp_path, 'classification')
    monkeypatch.setitem(runtime.ENGINES, 'onnxruntime', fail)
    with pytest.raises(runtime.ModelError, match=r'load it \(RuntimeError\)'):
        runtime.load(folder)


def test_boxes_that_are_not_numbers_are_a_picture_error(folders):
    model = runtime.load(folders['detection'], 'onnxruntime')
    outputs = model.run([red(204)])
    outputs['boxes'][0, 1, 2] = np.nan
    with pytest.raises(runtime.PictureError, match='not a finite number'):
        model.detections(outputs, [(60, 90)], [(1, 1)])


def test_masks_are_pasted_when_they_are_read(folders, monkeypatch):
    model = runtime.load(folders['detection'], 'onnxruntime')
    calls = []
    paste = runtime.paste_mask

    def counted(*arguments):
        calls.append(arguments)
        return paste(*arguments)

    monkeypatch.setattr(runtime, 'paste_mask', counted)
    result = model(red(204)).above(0.5)
    assert (len(result.patches), calls) == (1, [])
    runtime.as_json(result, model.classes)
    assert len(calls) == 1
    assert len(list(result.patches)) == 1


# ---- Runs that go wrong


def main(folder, *arguments):
    words = ['--model', folder, '--engine', 'onnxruntime', *arguments]
    return runtime.main([str(word) for word in words])


def photo(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(red(204)).save(path)
    return path


def test_inputs_are_not_overwritten(folders, tmp_path, monkeypatch, capsys):
    path = photo(tmp_path / 'photos/a.png')
    content = path.read_bytes()
    monkeypatch.chdir(path.parent)
    for words in (
        ['.', '--out', path.parent],
        ['a.png', '--out', '.'],
        [path, '--json', 'a.png'],
    ):
        assert main(folders['detection'], *words) == 2
        assert 'would overwrite' in capsys.readouterr().err
    assert path.read_bytes() == content
    label_map = photo(tmp_path / 'r_labels/a.png.png')
    words = [path, label_map, '--json', tmp_path / 'r.json']
    assert main(folders['segmentation'], *words) == 2
    assert main(folders['detection'], *words) == 0


@pytest.mark.parametrize(
    ('error', 'status'),
    [(OSError(28, 'No space left on device'), 2), (KeyboardInterrupt(), 130)],
)
def test_what_ends_a_run_keeps_its_results(
    folders, tmp_path, monkeypatch, capsys, error, status
):
    for name in 'ab':
        photo(tmp_path / f'photos/{name}.png')
    save = Image.Image.save

    def broken_save(image, path):
        if path.name == 'b.png':
            raise error
        save(image, path)

    monkeypatch.setattr(Image.Image, 'save', broken_save)
    file = tmp_path / 'r.json'
    words = [tmp_path / 'photos', '--out', tmp_path / 'o', '--json', file]
    assert main(folders['detection'], *words) == status
    assert len(json.loads(file.read_text())['images']) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_that_the_terminal_cannot_show(folders, tmp_path, monkeypatch):
    photo(tmp_path / 'photos/ä.png')
    stream = io.TextIOWrapper(io.BytesIO(), 'ascii')
    monkeypatch.setattr(sys, 'stdout', stream)
    assert main(folders['detection'], tmp_path / 'photos') == 0
    stream.flush()
    assert b'\\xe4.png: 2 objects' in stream.buffer.getvalue()


def test_notices_a_changed_or_missing_file(tmp_path):
    write_exported(tmp_path, 'classification')
    path = tmp_path / 'model.onnx'
    with path.open('ab') as file:
        file.write(b'\0')
    with pytest.raises(runtime.ModelError, match='changed after the export'):
        runtime.load(tmp_path)
    path.unlink()
    with pytest.raises(runtime.ModelError, match='is missing'):
        runtime.load(tmp_path)


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_a_file_that_the_engine_cannot_load(tmp_path, engine):
    formats = {'openvino': 'openvino', 'onnxruntime': 'onnx'}[engine]
    write_exported(tmp_path, 'classification', (formats,))
    entry = json.loads((tmp_path / 'model.json').read_text())['files'][formats]
    (tmp_path / entry['file']).write_text('no model')
    broken(tmp_path, files={formats: {'file': entry['file']}})
    with pytest.raises(runtime.ModelError, match='cannot load it'):
        runtime.load(tmp_path, engine)


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_an_engine_that_fails_names_the_size(folders, engine):
    model = runtime.load(folders['segmentation'], engine)
    with pytest.raises(runtime.PictureError, match='of 5 x 7 pixels'):
        model.run([np.zeros((5, 7, 3), np.uint8)], (-1, 1))


# ---- Without PyTorch


def predict(folder, *arguments, more=''):
    """Run predict.py where the other packages cannot be imported."""
    code = (
        f'{BLOCKED}{more}\nimport runpy\n'
        f'sys.argv = ["predict.py", *sys.argv[1:]]\n'
        f'runpy.run_path({str(folder / "predict.py")!r}, '
        'run_name="__main__")'
    )
    return run([sys.executable, '-c', code, *arguments], cwd=folder.parent)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_the_folder_runs_alone(folders, tmp_path, task, engine):
    photos = tmp_path / 'photos'
    (photos / 'more').mkdir(parents=True)
    Image.fromarray(red(204)).save(photos / 'a.png')
    Image.fromarray(red(204)).save(photos / 'more/a.bmp')
    for name, (content, _) in corrupt_files.BAD.items():
        (photos / f'{name}.jpg').write_bytes(content)
    drawn, file = tmp_path / 'drawn', tmp_path / 'out/results.json'
    flags = ['--out', drawn, '--json', file, '--batch-size', 3]
    done = predict(folders[task], photos, *flags, '--engine', engine)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == len(corrupt_files.BAD)
    assert f'2 predicted, {len(corrupt_files.BAD)} failed' in done.stdout
    assert sorted(p.name for p in drawn.rglob('*.png')) == [
        'a.bmp.png',
        'a.png',
    ]
    content = json.loads(file.read_text())
    assert [(i['id'], i['width']) for i in content['images']] == [
        (0, 90),
        (1, 90),
    ]
    assert {r['image_id'] for r in content['results']} == {0, 1}
    if task == 'segmentation':
        for entry in content['images']:
            labels = Image.open(file.parent / entry['label_map'])
            assert labels.mode == 'P'
            assert labels.getpalette()[:3] == PALETTE[0]
            assert labels.size == (90, 60)


def test_thresholds_of_the_command_line(folders, tmp_path):
    path, file = tmp_path / 'a.png', tmp_path / 'r.json'
    Image.fromarray(red(204)).save(path)
    for flags, count in (([], 2), (['--score-thr', 0.5], 1)):
        done = predict(folders['detection'], path, '--json', file, *flags)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(file.read_text())['results']) == count


def test_nothing_to_predict_fails(folders, tmp_path):
    done = predict(folders['detection'], tmp_path)
    assert (done.returncode, done.stdout) == (1, '0 predicted, 0 failed\n')


def test_no_engine_is_one_line(folders, tmp_path):
    more = "Blocked.names |= {'openvino', 'onnxruntime'}"
    done = predict(folders['detection'], tmp_path, more=more)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'pip install openvino or onnxruntime' in line


def test_the_other_engine_if_the_first_is_missing(folders, tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(red(204)).save(path)
    more = "Blocked.names |= {'openvino'}"
    done = predict(folders['detection'], path, more=more)
    assert done.returncode == 0, done.stderr


def test_names_of_drawings_are_unique(tmp_path):
    for name in ('x/a.png', 'y/a.png', 'y/a.bmp', 'y/a.bmp.png'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'')
    found = runtime.find_pictures([str(tmp_path / 'x'), str(tmp_path / 'y')])
    assert len(set(found.values())) == len(found) == 4
    again = runtime.find_pictures([str(tmp_path / 'x'), str(tmp_path / 'x')])
    assert list(again.values()) == [Path('a.png')]


# ---- With nothing else installed

NEEDED = ('numpy', 'numpy.libs', 'PIL', 'pillow.libs')
ENGINE_PACKAGES = {
    'onnxruntime': ('onnxruntime', 'flatbuffers', 'google', 'packaging'),
    'openvino': ('openvino', 'openvino_telemetry'),
}


@pytest.mark.parametrize('engine', runtime.ENGINES)
def test_needs_numpy_pillow_and_an_engine_only(folders, tmp_path, engine):
    """As in a fresh environment: the path has these packages only."""
    site = tmp_path / 'site'
    site.mkdir()
    installed = Path(np.__file__).parents[1]
    for name in (*NEEDED, *ENGINE_PACKAGES[engine]):
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    path = tmp_path / 'a.png'
    Image.fromarray(red(204)).save(path)
    script = folders['detection'] / 'predict.py'
    code = (
        f'import sys, runpy; sys.path.append({str(site)!r})\n'
        f'sys.argv = ["predict.py", {str(path)!r}, "--engine", {engine!r}]\n'
        f'runpy.run_path({str(script)!r}, run_name="__main__")'
    )
    # Isolated, without the packages of this environment.
    done = run([sys.executable, '-I', '-S', '-c', code], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '2 objects' in done.stdout

"""The static page in Chromium, against predict.py."""

import contextlib
import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.deploy import runtime, static_page
from mmtransxnet.utils.errors import UserError
from tests.support import tools
from tests.support.exported import normalised_model, write_exported

TASKS = ('classification', 'detection', 'segmentation')


@pytest.fixture(scope='session')
def engine():
    """The folder of onnxruntime-web."""
    pytest.importorskip('onnxruntime', reason='pip install onnxruntime')
    try:
        return static_page.fetch_runtime()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Exported folders of the three tasks; the detector's size is fixed."""
    pytest.importorskip('onnx', reason='pip install onnx')
    home = tmp_path_factory.mktemp('exported')
    for task in TASKS:
        write_exported(home / task, task, backbone='TransXNet, ' * 9)
    write_exported(home / 'fixed', 'detection', batch=2, size=(64, 64))
    raw = {'size': 28, 'threshold': 0.5, 'paste': False}
    write_exported(home / 'raw', 'detection', masks=raw, palette=[])
    write_exported(
        home / 'normalised', 'classification', model=normalised_model()
    )
    return home


NAMES = (*TASKS, 'fixed', 'raw', 'normalised')


@pytest.fixture(scope='module')
def site(folders, engine, tmp_path_factory):
    out = tmp_path_factory.mktemp('static') / 'site'
    command = tools.command(
        'web_static.py', *(folders / name for name in NAMES), '--out', out,
        '--runtime', engine,
    )  # fmt: skip
    done = tools.run(command)
    assert done.returncode == 0, done.stderr
    return out


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder that ``http.server`` hands out."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()


@pytest.fixture(scope='module')
def browser():
    api = pytest.importorskip(
        'playwright.sync_api', reason='pip install playwright'
    )
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('chromium is not installed')
    with api.sync_playwright() as play:
        started = play.chromium.launch(
            executable_path=chromium, args=['--no-sandbox', '--disable-gpu']
        )
        yield started
        started.close()


@pytest.fixture(scope='module')
def address(site):
    with served(site) as place:
        yield place


@pytest.fixture
def page(browser, address):
    """The page; at the end it must have told no error, asked no other host."""
    context = browser.new_context(viewport={'width': 1280, 'height': 900})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    told, asked = [], []
    opened.on('console', lambda m: told.append(m.text))
    opened.on('pageerror', lambda error: told.append(str(error)))
    opened.on('request', lambda request: asked.append(request.url))
    opened.goto(address)
    wait(opened, 'Ready: choose a picture.')
    yield opened
    context.close()
    assert told == []
    own = (address, 'data:', f'blob:{address}')
    assert [url for url in asked if not url.startswith(own)] == []


def wait(page, status):
    """Wait until the line of the status has a text, or there is an error."""
    page.wait_for_function(
        """text => ['status', 'error'].some(id => {
            const told = document.getElementById(id).textContent;
            return told && (id === 'error' || told.includes(text));
        })""",
        arg=status,
    )
    assert page.text_content('#error') == ''


def choose(page, name):
    page.select_option('#model', f'models/{NAMES.index(name)}')


def predicted(page, path):
    """What the page's JSON says about a picture."""
    page.set_input_files('#file', path)
    wait(page, f'{path.name}: ')
    wait(page, ' ms')
    return json.loads(page.text_content('#json'))


def picture(folder, size=(90, 70), name='picture.png'):
    """A picture with structure at all scales, as PNG: no loss."""
    rng = np.random.default_rng(0)
    width, height = size
    across = np.linspace(0, 255, width)[None, :, None]
    noise = rng.integers(-60, 60, (height, width, 3))
    pixels = np.clip(across + noise, 0, 255).astype(np.uint8)
    path = folder / name
    Image.fromarray(pixels).save(path)
    return path


def expected(folder, path):
    """The results of predict.py, and its model."""
    model = runtime.load(folder, 'onnxruntime')
    result = model(path)
    return model, runtime.as_json(result, model.classes)


@pytest.mark.parametrize('name', NAMES)
def test_results_are_those_of_predict(page, folders, tmp_path, name):
    """Resized in the page: no picture has the size that the model takes."""
    path = picture(tmp_path)
    _, want = expected(folders / name, path)
    choose(page, name)
    wait(page, 'Ready')
    if page.is_visible('#score'):
        page.fill('#score', '0')
    got = predicted(page, path)
    assert got['images'] == [
        {'id': 0, 'file_name': path.name, 'width': 90, 'height': 70}
    ]
    assert len(got['results']) == len(want)
    for one, other in zip(got['results'], want, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            if key in ('score', 'scores', 'share', 'mask'):
                np.testing.assert_allclose(one[key], value, atol=1e-4)
            elif key == 'bbox':
                np.testing.assert_allclose(one[key], value, atol=2e-3)
            else:
                assert one[key] == value


def test_large_pictures_are_normalised_accurately(page, tmp_path):
    """The engine adds the values of a mean one after another."""
    path = picture(tmp_path, (1200, 800))
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    want = (pixels[0, 0] - pixels.mean()) / np.sqrt(pixels.var() + 1e-5)
    choose(page, 'normalised')
    wait(page, 'Ready')
    (got,) = predicted(page, path)['results']
    np.testing.assert_allclose(got['scores'], want, atol=1e-5)


def test_pixels_are_those_of_opencv_and_pillow(page):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (37, 53, 3), np.uint8)
    kinds = [None, *runtime._PILLOW_FILTERS]
    sizes = [(53, 80), (20, 37), (21, 90), (101, 11)]
    run = """async ([data, kinds, sizes]) => {
        const {resizeBilinear, resizePillow} = await import('./pixels.mjs');
        const picture = {data: Uint8Array.from(data), width: 53, height: 37};
        return kinds.map(kind => sizes.map(([w, h]) => Array.from(
            (kind ? resizePillow(picture, w, h, kind)
                  : resizeBilinear(picture, w, h)).data)));
    }"""
    got = page.evaluate(run, [pixels.ravel().tolist(), kinds, sizes])
    for kind, outputs in zip(kinds, got, strict=True):
        for (width, height), output in zip(sizes, outputs, strict=True):
            if kind is None:
                want = runtime.resize_bilinear(pixels, width, height)
            else:
                want = np.asarray(
                    Image.fromarray(pixels).resize(
                        (width, height), runtime._PILLOW_FILTERS[kind]
                    )
                )
            assert output == want.ravel().tolist(), (kind, width, height)


def test_masks_and_colours_are_those_of_predict(page):
    rng = np.random.default_rng(2)
    size = (41, 67)
    boxes = rng.uniform(-20, 80, (40, 4)).astype(np.float32)
    boxes[:30, 2:] = boxes[:30, :2] + np.abs(boxes[:30, 2:])
    masks = rng.random((40, 28, 28)).astype(np.float32)
    run = """async ([masks, boxes, size]) => {
        const {colours, pasteMask, runLength} = await import('./model.mjs');
        const [height, width] = size;
        return [colours(90), masks.map((mask, i) => runLength(pasteMask(
            mask, 28, boxes[i], {height, width}, 0.5), {height, width}))];
    }"""
    flat = masks.reshape(40, -1).tolist()
    colours, got = page.evaluate(run, [flat, boxes.tolist(), size])
    patches = runtime.Patches(masks, boxes, size, 0.5)
    assert got == [patch.run_length(*size) for patch in patches]
    assert np.abs(np.subtract(colours, runtime.colours(90))).max() <= 1


def test_the_slider_and_the_keyboard(page, tmp_path):
    choose(page, 'detection')
    path = picture(tmp_path)
    got = predicted(page, path)
    assert page.input_value('#score') == '0.3'
    assert len(got['results']) == 1
    before = page.evaluate("document.getElementById('drawing').toDataURL()")
    page.focus('#model')
    # The picture, then the slider.
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'file'
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'score'
    page.keyboard.press('Home')
    assert page.text_content('#minimum') == '0.00'
    assert len(json.loads(page.text_content('#json'))['results']) == 2
    after = page.evaluate("document.getElementById('drawing').toDataURL()")
    assert after != before
    page.keyboard.press('End')
    assert page.text_content('#summary') == '0 objects'


def test_bad_files_give_a_message_and_the_page_goes_on(page, tmp_path):
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no picture')
    page.set_input_files('#file', broken)
    message = 'broken.png cannot be decoded'
    page.locator('#error', has_text=message).wait_for()
    long = picture(tmp_path, (1010, 10), 'long.png')
    page.set_input_files('#file', long)
    page.locator('#error', has_text='100 times').wait_for()
    page.set_input_files('#file', picture(tmp_path))
    page.locator('#status', has_text='picture.png: ').wait_for()
    page.locator('#json', has_text='"file_name":"picture.png"').wait_for()
    assert page.text_content('#error') == ''


def test_dropped_pictures_are_predicted_at_two_widths(page, tmp_path):
    path = picture(tmp_path, (300, 200))
    choose(page, 'segmentation')
    wait(page, 'Ready')
    drop = """async ([bytes, type]) => {
        const transfer = new DataTransfer();
        const file = new File([Uint8Array.from(bytes)], 'dropped.png', {type});
        transfer.items.add(file);
        document.getElementById('drop').dispatchEvent(new DragEvent(
            'drop', {dataTransfer: transfer, bubbles: true}));
    }"""
    page.evaluate(drop, [list(path.read_bytes()), 'image/png'])
    wait(page, 'dropped.png: ')
    for width in (400, 1280):
        page.set_viewport_size({'width': width, 'height': 900})
        for part in ('html', '.controls'):
            wide = f'document.querySelector("{part}").scrollWidth'
            shown = f'document.querySelector("{part}").clientWidth'
            assert page.evaluate(wide) == page.evaluate(shown)
        box = page.locator('#drawing').bounding_box()
        assert 200 < box['width'] <= width
        assert box['width'] / box['height'] == pytest.approx(1.5, abs=0.02)
    # Another model predicts the same picture.
    choose(page, 'classification')
    wait(page, 'dropped.png: ')
    page.click('#copy')
    wait(page, 'The JSON is ')


def test_the_tool_refuses_what_the_page_cannot_run(folders, tmp_path):
    other = tmp_path / 'openvino'
    shutil.copytree(folders / 'detection', other)
    info = json.loads((other / 'model.json').read_text())
    info['files'] = {'openvino': {'file': 'model.xml'}}
    (other / 'model.json').write_text(json.dumps(info))
    out = tmp_path / 'site'
    with pytest.raises(UserError, match='no ONNX file'):
        static_page.write_site([other], out)
    changed = tmp_path / 'changed'
    shutil.copytree(folders / 'detection', changed)
    with (changed / 'model.onnx').open('ab') as file:
        file.write(b'x')
    with pytest.raises(UserError, match='changed after the export'):
        static_page.write_site([changed], out)
    with pytest.raises(UserError, match=r'has no ort\.wasm\.min\.mjs'):
        static_page.write_site([folders / 'detection'], out, tmp_path)
    assert not out.exists()
    out.mkdir()
    (out / 'thesis.txt').write_text('not to be lost')
    with pytest.raises(UserError, match=r'other things.*thesis\.txt'):
        static_page.write_site([folders / 'detection'], out)


def test_npm_missing_and_npm_failing_are_errors(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match=r'npm.*is not installed'):
        static_page.fetch_runtime()
    npm = tmp_path / 'npm'
    npm.write_text('#!/bin/sh\necho "no such host" >&2\nexit 1\n')
    npm.chmod(0o755)
    with pytest.raises(UserError, match=r'cannot fetch.*no such host'):
        static_page.fetch_runtime()
    npm.write_text(
        f'#!/bin/sh\necho other > onnxruntime-web-{static_page.VERSION}.tgz\n'
    )
    with pytest.raises(UserError, match='SHA-256'):
        static_page.fetch_runtime()

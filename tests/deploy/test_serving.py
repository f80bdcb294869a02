"""tools/serve.py over HTTP, under load and with hostile requests."""

import asyncio
import base64
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from mmtransxnet.benchmark.load import (
    load,
    same_answer,
    sample_pictures,
    serving,
    stop_in_flight,
)
from mmtransxnet.deploy import runtime
from mmtransxnet.deploy.serving import Batcher, Limits, Metrics
from tests.support import corrupt_files
from tests.support.exported import PALETTE, write_exported
from tests.support.paths import ROOT
from tests.support.tools import command, run

SERVE = ROOT / 'tools/serve.py'
PICTURES = sample_pictures(6, [48, 64, 80])


@pytest.fixture(scope='module', params=('detection', 'segmentation'))
def served(tmp_path_factory, request):
    """A server of each task with small limits, and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    write_exported(folder, request.param)
    flags = ('--max-mib', '1', '--max-megapixels', '0.1', '--timeout', '2')
    with serving(SERVE, folder, *flags) as server:
        yield server, folder


def post(server, content, kind='image/png', **options):
    headers = {'content-type': kind, **options.pop('headers', {})}
    url = f'{server.url}/predict'
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(url, content=content, headers=headers, **options)


def test_answers_as_the_runtime(served):
    server, folder = served
    model = runtime.load(folder)
    for picture in PICTURES:
        result = model(picture)
        answer = post(server, picture)
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert content['results'] == runtime.as_json(result, model.classes)
        assert (content['height'], content['width']) == result.size
        if model.task == 'segmentation':
            png = base64.b64decode(content['label_map'])
            labels = np.asarray(Image.open(io.BytesIO(png)))
            assert np.array_equal(labels, result.labels)


def test_forms_and_query(served):
    server, folder = served
    with httpx.Client(trust_env=False, base_url=server.url) as client:
        answer = client.post('/predict', files={'any': PICTURES[0]})
        assert answer.json() == post(server, PICTURES[0]).json()
        answer = client.post('/predict', data={'any': 'text'})
        assert answer.status_code == 415
        answer = client.post(
            '/predict', files={'a': PICTURES[0], 'b': PICTURES[0]}
        )
        assert answer.status_code == 400
        answer = client.post('/predict?score_thr=1', content=PICTURES[0])
        if runtime.load(folder).task == 'detection':
            assert answer.json()['results'] == []
        answer = client.post('/predict?score_thr=2', content=PICTURES[0])
        assert answer.status_code == 422


def test_label_map_as_png(served):
    server, folder = served
    answer = post(server, PICTURES[0], headers={'accept': 'image/png'})
    if runtime.load(folder).task == 'detection':
        assert answer.status_code == 406
        return
    image = Image.open(io.BytesIO(answer.content))
    assert image.mode == 'P'
    assert image.getpalette()[:3] == PALETTE[0]


def test_health_and_metrics(served):
    server, folder = served
    post(server, PICTURES[0])
    with httpx.Client(trust_env=False, base_url=server.url) as client:
        health = client.get('/health').json()
        assert health['status'] == 'ok'
        assert health['task'] == runtime.load(folder).task
        text = client.get('/metrics').text
        # Nothing is loaded from elsewhere.
        assert client.get('/docs').status_code == 404
    assert 'mmtransxnet_requests_total{status="200"}' in text
    assert 'mmtransxnet_in_flight 0' in text
    assert 'mmtransxnet_request_seconds_bucket{le="+Inf"}' in text


@pytest.mark.parametrize('name', corrupt_files.BAD)
def test_hostile_pictures_get_4xx(served, name):
    content, _ = corrupt_files.BAD[name]
    answer = post(served[0], content)
    assert answer.status_code in (400, 413)
    assert answer.json()['detail']


def test_limits_get_413(served):
    server, _ = served
    assert post(server, bytes(2**20 + 1)).status_code == 413
    large = corrupt_files.encoded(np.zeros((400, 300, 3), np.uint8), 'PNG')
    answer = post(server, large)
    assert (answer.status_code, 'more than 100000' in answer.text) == (
        413,
        True,
    )

    def parts():  # without Content-Length
        for _ in range(20):
            yield bytes(2**16)

    assert post(server, parts()).status_code == 413


def test_class_maps_are_limited(tmp_path):
    folder = write_exported(tmp_path, 'segmentation')
    # Both classes of 64 x 64 pixels, twice.
    flags = ('--max-map-mib', 4 * 64 * 64 * 2 * 2 / 2**20)
    with serving(SERVE, folder, *map(str, flags)) as server:
        outcome = asyncio.run(load(server.url, PICTURES, 40, 8))
        large = corrupt_files.encoded(np.zeros((99, 99, 3), np.uint8), 'PNG')
        answer = post(server, large)
    assert (outcome.answered, outcome.lost) == (40, 0)
    assert answer.status_code == 413


@pytest.mark.parametrize(('side', 'most'), [(64, 2), (90, 1), (16, 8)])
def test_large_label_maps_run_in_small_batches(side, most):
    limits = Limits(map_bytes=4 * 64 * 64 * 2 * 2)
    model = SimpleNamespace(task='segmentation', classes=['a', 'b'])

    async def largest():
        batcher = Batcher(model, ValueError, limits, Metrics())
        return batcher._largest_batch(SimpleNamespace(size=(side, side)))

    assert asyncio.run(largest()) == most


def test_types_and_methods(served):
    server, _ = served
    for kind in ('text/html', 'application/json'):
        assert post(server, PICTURES[0], kind).status_code == 415
    kind = 'multipart/form-data'  # without a boundary
    assert post(server, PICTURES[0], kind).status_code == 400
    with httpx.Client(trust_env=False, base_url=server.url) as client:
        assert client.get('/predict').status_code == 405
        assert client.get('/nothing').status_code == 404


def raw(server, content, wait=True):
    """Send bytes; return what comes back until the connection closes."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as link:
        link.settimeout(20)
        link.sendall(content)
        if not wait:
            return b''
        received = b''
        while part := link.recv(65536):
            received += part
            if b'\r\n\r\n' in received:
                break
        return received


def test_huge_headers_and_rubbish_get_400(served):
    server, _ = served
    line = b'POST /predict HTTP/1.1\r\nHost: x\r\n'
    huge = line + b'X: ' + b'a' * 2**17 + b'\r\n\r\n'
    # The connection may be closed before all of it is sent.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        assert b' 400 ' in raw(server, huge)
    assert b' 400 ' in raw(server, b'rubbish\r\n\r\n')
    assert post(server, PICTURES[0]).status_code == 200


def test_slow_and_broken_bodies(served):
    server, _ = served
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n'
    raw(server, head + b'1', wait=False)
    assert b' 408 ' in raw(server, head + b'1')
    assert post(server, PICTURES[0]).status_code == 200


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp('load')
    return write_exported(folder, 'detection')


def test_overload_loses_and_mixes_up_nothing(detector):
    with serving(SERVE, detector, '--max-requests', '4') as server:
        outcome = asyncio.run(load(server.url, PICTURES, 400, 16))
        with httpx.Client(trust_env=False, base_url=server.url) as client:
            text = client.get('/metrics').text
    assert (outcome.answered, outcome.lost, outcome.mixed_up) == (400, 0, 0)
    assert outcome.refused > 0
    line = f'requests_total{{status="503"}} {outcome.refused}\n'
    assert line in text


def test_answers_are_compared_up_to_rounding():
    entry = {'category_id': 3, 'bbox': [10.0, 20.0], 'segmentation': 'ab'}
    answer = {'width': 64, 'results': [{**entry, 'score': 0.5}]}
    rounded = {**entry, 'bbox': [10.001, 20.0], 'segmentation': 'ac'}
    others = (
        {**entry, 'score': 0.5, 'bbox': [10.1, 20.0]},
        {**entry, 'score': 0.51},
        {**entry, 'score': 0.5, 'category_id': 4},
        entry,
    )
    expected = {'width': 64, 'results': [{**rounded, 'score': 0.500001}]}
    assert same_answer(answer, expected)
    assert not same_answer({**answer, 'width': 65}, expected)
    assert not same_answer({**answer, 'results': []}, expected)
    for other in others:
        assert not same_answer({**answer, 'results': [other]}, expected)


def test_objects_of_equal_scores_may_change_places():
    first = {'bbox': [10.0, 20.0], 'score': 0.5}
    second = {'bbox': [30.0, 20.0], 'score': 0.5000001}
    assert same_answer([first, second], [second, first])
    assert not same_answer([first, first], [second, first])


def test_label_maps_may_differ_in_a_pixel_and_scores_in_little():
    classes = [{'class': 'cat', 'pixels': 100, 'share': 0.0244}]
    other = [{'class': 'cat', 'pixels': 101, 'share': 0.0247}]
    assert same_answer(classes, other)
    assert not same_answer([{**classes[0], 'share': 0.03}], classes)
    assert not same_answer([0.0005] * 1000, [0.0024] * 1000)


@pytest.mark.parametrize('got', [None, [], {}, 'no', [None], {'a': None}])
def test_answers_of_other_kinds_are_not_the_same(got):
    assert not same_answer(got, {'a': 0.5})
    assert not same_answer(got, [{'a': 0.5}])


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_stays_flat(detector):
    pictures = sample_pictures(4, [192])
    with serving(SERVE, detector) as server:
        asyncio.run(load(server.url, pictures, 100, 8))
        first = server.memory()
        asyncio.run(load(server.url, pictures, 300, 8))
        second = server.memory()
    # A part of what the pictures of the requests need.
    assert second - first < 300 * 192 * 192 * 3 / 2**20 / 4


def test_sigterm_finishes_what_is_in_flight(detector):
    # They wait for a batch that never becomes full.
    flags = ('--wait-ms', '1500', '--batch-size', '32')
    with serving(SERVE, detector, *flags) as server:
        stopped = asyncio.run(stop_in_flight(server, PICTURES[0], 8))
    assert stopped == {'in flight': 8, 'finished': 8, 'exit status': 0}


def test_needs_no_pytorch(detector):
    code = (
        'import sys, runpy\n'
        'for name in ("torch", "mmcv", "mmengine", "cv2", "mmtransxnet"):\n'
        '    sys.modules[name] = None\n'
        f'sys.argv = ["serve.py", {str(detector)!r}, "--port", "0"]\n'
        f'runpy.run_path({str(SERVE)!r}, run_name="__main__")'
    )
    words = [sys.executable, '-c', code]
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert 'serving on' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(30)
    finally:
        process.kill()


def test_what_cannot_be_served_is_one_line(tmp_path, detector):
    done = run(command('serve.py', tmp_path))
    assert done.returncode == 1
    assert 'is not an exported model' in done.stderr.splitlines()[-1]
    done = run(command('serve.py', detector, '--batch-size', 0))
    assert '--batch-size must be positive' in done.stderr

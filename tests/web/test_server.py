"""What the tool serves, and what it refuses."""

import socket

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from mmtransxnet.deploy import runtime
from mmtransxnet.utils.errors import UserError
from mmtransxnet.web.folder import own_folder
from mmtransxnet.web.page import Settings, build_page
from mmtransxnet.web.server import create_app, serve


@pytest.fixture(scope='module')
def client(server, tmp_path_factory):
    return Client(
        server.url,
        verbose=False,
        analytics_enabled=False,
        download_files=tmp_path_factory.mktemp('downloads'),
    )


def test_call_over_http(client, files):
    """The only call that the page documents."""
    assert list(client.view_api(return_format='dict')['named_endpoints']) == [
        '/predict'
    ]
    picture = files / 'picture.png'
    drawing, text, data = client.predict(
        handle_file(picture), 'exported', 0.4, api_name='/predict'
    )
    own = runtime.load(files / 'exported')
    result = own(picture)
    assert data['results'] == runtime.as_json(result.above(0.4), own.classes)
    assert data['images'][0]['file_name'] == 'picture.png'
    assert 'predicted in' in text
    with Image.open(drawing) as image:
        assert image.size == (4 * 96, 4 * 96)  # enlarged


def call(server, *values):
    """Call without gradio_client, which would upload a file that is named."""
    url = f'{server.url}/gradio_api/call/predict'
    event = httpx.post(url, json={'data': values}).json()['event_id']
    return httpx.get(f'{url}/{event}').text


def file_data(**values):
    return {**values, 'meta': {'_type': 'gradio.FileData'}}


def test_files_and_addresses_in_a_call_are_refused(server, files):
    for value in (
        file_data(path='/etc/passwd'),
        file_data(path='/etc/passwd', is_stream=True),
        file_data(path='../../../../../../../../etc/passwd'),
        file_data(path=str(files / 'picture.png')),
        file_data(path='http://127.0.0.1:1/a.png'),
        file_data(url='data:image/png;base64,AAAA'),
    ):
        answer = call(server, value, 'exported', 0.4)
        assert answer.startswith('event: error'), value


def test_any_component_refuses_files_and_addresses(server):
    """Gradio looks for files in the values of all components."""
    for path in ('http://127.0.0.1:1/a.png', '/etc/passwd'):
        value = file_data(path=path)
        for values in ((None, 'exported', value), (None, value, 0.4)):
            assert call(server, *values).startswith('event: error')


def test_failure_in_a_call(client, files):
    drawing, text, data = client.predict(
        handle_file(files / 'broken.png'), 'exported', 0.4, api_name='/predict'
    )
    message = 'broken.png cannot be decoded (no known format)'
    assert drawing is None
    assert message in text
    assert data['failed'] == [{'file_name': 'broken.png', 'error': message}]


@pytest.mark.parametrize(
    'values', [('other', 0.4), ('exported', 2), ('exported', 'a')]
)
def test_wrong_values_are_refused(server, values):
    assert call(server, None, *values).startswith('event: error')


REFUSED = [
    '/gradio_api/file=/etc/passwd',
    '/gradio_api/file=../../../../../../etc/passwd',
    '/gradio_api/file=tools/web_demo.py',
    '/gradio_api/file=http://127.0.0.1:1/',
    '/gradio_api/proxy=http://127.0.0.1:1/',
    '/file=/etc/passwd',
    '/static/%2e%2e/%2e%2e/%2e%2e/index.html',
    '/assets/%2e%2e/index.html',
    '/monitoring',
    '/gradio_api/vibe-code',
    '/gradio_api/runs',
    '/gradio_api/openapi.json',
    '/docs',
]


@pytest.mark.parametrize('path', REFUSED)
def test_refused_routes(server, path):
    assert httpx.get(server.url + path).status_code in (403, 404)


def test_files_of_the_models_are_refused(server, files):
    for name in ('detector.py', 'exported/model.json'):
        answer = httpx.get(f'{server.url}/gradio_api/file={files / name}')
        assert answer.status_code == 403


def test_large_requests_are_refused(server):
    url = f'{server.url}/gradio_api/upload'
    for size in (2**20 + 1, 3 * 2**20):
        answer = httpx.post(url, files={'files': ('a.png', bytes(size))})
        assert answer.status_code == 413
    answer = httpx.post(
        f'{server.url}/gradio_api/queue/join', content=iter([b'{}'])
    )
    assert answer.status_code == 411


def test_nothing_comes_from_another_host(server):
    html = httpx.get(server.url)
    assert 'fonts.g' not in html.text
    assert 'fonts.g' not in httpx.get(f'{server.url}/theme.css').text
    assert "default-src 'self'" in html.headers['content-security-policy']
    config = httpx.get(f'{server.url}/config').json()
    assert config['analytics_enabled'] is False


def test_port_in_use():
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f'--port {port}: cannot listen'):
            serve(PlainTextResponse('page'), '127.0.0.1', port)


def test_no_call_passes_the_queue(server):
    config = httpx.get(f'{server.url}/config').json()
    for one in config['dependencies']:
        if one['queue']:
            answer = httpx.post(
                f'{server.url}/gradio_api/run/predict',
                json={'data': [], 'fn_index': one['id']},
            )
            assert answer.status_code == 404
            assert 'join the queue' in answer.text


class Model:
    """A model that is never asked."""

    name, task, classes, inferencer = 'model', 'detection', [], None


def test_queue_is_limited():
    """Without its lifespan, the application takes nothing from the queue."""
    with own_folder():
        page = build_page({'model': Model()}, settings=Settings(queue=2))
        client = TestClient(create_app(page, 2**20))
        body = {'data': [None, 'model', 0.4]}
        url = '/gradio_api/call/predict'
        codes = [client.post(url, json=body).status_code for _ in range(3)]
    assert codes == [200, 200, 503]

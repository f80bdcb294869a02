"""Published weights by name: found, fetched, or asked for."""

import functools
import http.server
import threading
import urllib.error
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmtransxnet import TransXNet
from mmtransxnet.engine import (
    UserError,
    check_checkpoint,
    check_init_weights,
)
from mmtransxnet.weights import load_weights, published
from tests.support.models import MICRO
from tests.support.paths import ROOT
from tests.support.published_files import SIZE, classifier

pytestmark = pytest.mark.distribution

# As listed in the release.
RELEASED = {
    't': 'transx-t.pth.tar',
    's': 'transx-s.pth.tar',
    'b': 'transx-b.pth.tar',
    'b-384': 'transx-b-384.pth.tar',
    'retinanet-t': 'retinanet_tiny.pth',
    'retinanet-s': 'retinanet_small.pth',
    'retinanet-b': 'retinanet_base.pth',
    'maskrcnn-t': 'maskrcnn_tiny.pth',
    'maskrcnn-s': 'maskrcnn_small.pth',
    'maskrcnn-b': 'maskrcnn_base.pth',
    'sfpn-t': 'sfpn_transxnet_tiny.pth',
    'sfpn-s': 'sfpn_transxnet_small.pth',
    'sfpn-b': 'sfpn_transxnet_base.pth',
}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache, and no directory of weights."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('TRANSXNET_WEIGHTS', raising=False)
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    return tmp_path / 'torch/hub/checkpoints'


@pytest.fixture
def offline(monkeypatch):
    """No network; the addresses that were asked for."""
    asked = []

    def refuse(url, *_, **__):
        asked.append(url)
        raise urllib.error.URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    return asked


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The release, on this machine; the paths that were asked for."""
    folder = tmp_path / 'server'
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    address = f'http://127.0.0.1:{httpd.server_port}'
    monkeypatch.setattr(published, 'RELEASE', address)
    yield folder, asked, address
    httpd.shutdown()
    httpd.server_close()


def test_names_are_the_files_of_the_release(offline):
    assert published.FILES == RELEASED
    with pytest.raises(ValueError, match='no network'):
        published.find_weights('transxnet://s')
    assert offline == [
        'https://github.com/LMMMEng/TransXNet/releases/download/v1.0/'
        'transx-s.pth.tar'
    ]


def test_directory_comes_first(files, tmp_path, monkeypatch, hub, offline):
    monkeypatch.setenv('TRANSXNET_WEIGHTS', str(tmp_path))
    hub.mkdir(parents=True)
    (hub / 'transx-t.pth.tar').write_text('not this one')
    data = Path(files['training dict']).read_bytes()
    (tmp_path / 'transx-t.pth.tar').write_bytes(data)
    load_checkpoint(classifier(), 'transxnet://t', strict=True)
    load_weights(TransXNet(MICRO, SIZE), 'transxnet://t')
    assert offline == []


def test_then_the_cache(files, monkeypatch, tmp_path, hub, offline):
    monkeypatch.setenv('TRANSXNET_WEIGHTS', str(tmp_path))
    hub.mkdir(parents=True)
    data = Path(files['bare']).read_bytes()
    (hub / 'transx-b-384.pth.tar').write_bytes(data)
    load_weights(TransXNet(MICRO, SIZE), 'transxnet://b-384')
    assert offline == []


def test_then_it_is_fetched_once(files, server, hub):
    folder, asked, _ = server
    data = Path(files['bare']).read_bytes()
    (folder / 'transx-t.pth.tar').write_bytes(data)
    for _ in range(2):
        CheckpointLoader.load_checkpoint('transxnet://t')
    assert asked == ['/transx-t.pth.tar']
    assert [path.name for path in hub.iterdir()] == ['transx-t.pth.tar']


def test_addresses_are_fetched_safely(files, server, tmp_path):
    """torch's own reading of downloads has no check."""
    folder, _, address = server
    data = Path(files['training dict']).read_bytes()
    (folder / 'good.pth').write_bytes(data)
    load_checkpoint(classifier(), f'{address}/good.pth', strict=True)

    class Intruder:
        def __reduce__(self):
            return open, (str(tmp_path / 'trace'), 'w')

    torch.save(dict(state_dict=Intruder()), folder / 'bad.pth')
    with pytest.raises(ValueError, match='refused'):
        load_checkpoint(classifier(), f'{address}/bad.pth')
    assert not (tmp_path / 'trace').exists()


def test_what_the_server_does_not_have(server, hub):
    with pytest.raises(ValueError, match=r'cannot be fetched .*404'):
        published.find_weights('transxnet://s')
    assert list(hub.iterdir()) == []


def test_offline_says_what_to_fetch_and_where_to_put_it(offline, hub):
    with pytest.raises(ValueError) as caught:
        published.find_weights('transxnet://maskrcnn-t')
    message = str(caught.value)
    assert f'{published.RELEASE}/maskrcnn_tiny.pth' in message
    assert f'put maskrcnn_tiny.pth into {hub}' in message
    assert 'TRANSXNET_WEIGHTS' in message


@pytest.mark.parametrize('name', ['transxnet://x', 'transxnet://b384'])
def test_unknown_names_list_the_known(name, offline):
    with pytest.raises(ValueError, match='transxnet://b-384, transxnet://ret'):
        CheckpointLoader.load_checkpoint(name)
    assert offline == []


def test_a_directory_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv('TRANSXNET_WEIGHTS', str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='nowhere is not a directory'):
        published.find_weights('transxnet://t')


# ----------------------------------------------------- before a run starts
def run_from(source, **init):
    init_cfg = dict(type='Pretrained', checkpoint=source, **init)
    backbone = dict(
        type='TransXNet', arch=MICRO, image_size=SIZE, init_cfg=init_cfg
    )
    return Config(dict(model=dict(backbone=backbone)))


def test_a_run_does_not_start_without_its_weights(offline):
    with pytest.raises(UserError, match=r'transx-t\.pth\.tar cannot be fetch'):
        check_init_weights(run_from('transxnet://t'))
    with pytest.raises(UserError, match='is not published'):
        check_init_weights(run_from('transxnet://tiny'))


def test_a_run_does_not_start_from_another_size(files):
    check_init_weights(run_from(files['training dict']))
    config = run_from(files['training dict'])
    config.model.backbone.arch = 's'
    with pytest.raises(UserError, match=r'does not fit TransXNet: .* shape'):
        check_init_weights(config)


def test_what_is_allowed_by_name_may_differ(files):
    config = run_from(files['bare'])
    config.model.backbone.in_channels = 4
    with pytest.raises(UserError, match=r'patch_embed\.proj\.conv\.weight'):
        check_init_weights(config)
    allowed = run_from(files['bare'], allow=['patch_embed.*.weight'])
    allowed.model.backbone.in_channels = 4
    check_init_weights(allowed)


def test_a_named_checkpoint_is_checked(files, monkeypatch, tmp_path):
    monkeypatch.setenv('TRANSXNET_WEIGHTS', str(tmp_path))
    data = Path(files['training dict']).read_bytes()
    (tmp_path / 'transx-t.pth.tar').write_bytes(data)
    check_checkpoint('transxnet://t', classifier(), 'config.py')
    detector = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match='does not fit the model of config'):
        check_checkpoint('transxnet://t', detector, 'config.py')


def test_a_new_head_is_allowed_by_name(files):
    model = classifier()
    model.head.fc = torch.nn.Linear(64, 3)
    path = files['training dict']
    with pytest.raises(UserError, match=r'head\.fc\.weight \(10, 64\) for'):
        check_checkpoint(path, model, 'config.py')
    check_checkpoint(path, model, 'config.py', ['head.fc.*'])
    fitted = load_weights(model, path, allow=['head.fc.*'])
    assert set(fitted.fresh) == {'head.fc.weight', 'head.fc.bias'}


@pytest.mark.parametrize(
    'path',
    sorted((ROOT / 'configs').glob('[!_]*/*.py')),
    ids=lambda path: path.stem,
)
def test_configs_name_weights_that_are_published(path):
    config = Config.fromfile(path)
    init = config.model.backbone.get('init_cfg') or {}
    for source in (init.get('checkpoint'), config.load_from):
        if source and '://' in source:
            assert published.file_name(source)
            assert source.startswith('transxnet://')
            size = source.partition('://')[2]
            assert config.model.backbone.arch == size

"""A config for own data, from each kind that is read."""

import json
import shutil

import pytest

from mmtransxnet.engine import check_data, load_config
from tests.support import own_data
from tests.support.paths import ROOT


def label_maps_with_names(root, kind):
    own_data.label_maps(root, kind=kind)
    own_data.write_text(root / 'classes.txt', 'nothing\ncat\ndog')
    return root


KINDS = dict(
    class_folders=(own_data.class_folders, []),
    coco=(own_data.coco, []),
    coco_masks=(
        lambda root: own_data.coco(root, mask=lambda b: [own_data.corners(b)]),
        [],
    ),
    coco_as_segmentation=(
        lambda root: own_data.coco(root, mask=lambda b: [own_data.corners(b)]),
        ['--task', 'segmentation'],
    ),
    voc=(own_data.voc, []),
    csv=(own_data.csv_boxes, []),
    yolo=(own_data.yolo, []),
    yolo_without_yaml=(own_data.yolo_flat, []),
    yolo_segments=(
        lambda root: own_data.yolo(root, segments=True),
        ['--task', 'segmentation'],
    ),
    labelme=(own_data.labelme, []),
    labelme_polygons=(
        lambda root: own_data.labelme(root, kind='polygon'),
        ['--task', 'segmentation'],
    ),
    label_maps=(own_data.label_maps, []),
    label_maps_palette=(
        lambda root: label_maps_with_names(root, 'palette'),
        [],
    ),
    label_maps_colours=(
        lambda root: own_data.label_maps(root, kind='colour'),
        [],
    ),
    tiles=(own_data.voc, ['--tile', '32']),
    tiles_of_label_maps=(own_data.label_maps, ['--tile', '32']),
)


def names_in(folder):
    """Everything in a folder and below, with its content."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
    }


def test_looks_decides_and_explains(tmp_path, tool):
    """As a user starts it, with the check of every file."""
    data = own_data.class_folders(tmp_path / 'my data')
    out = tmp_path / 'configs' / 'pets.py'
    (data / 'cat' / '0.jpg').write_bytes(
        (data / 'cat' / '0.jpg').read_bytes()[:400]
    )
    before = names_in(data)
    status, text = tool('new_config.py', data, '--out', out)
    assert status == 0, text
    assert names_in(data) == before
    names = {path.name for path in out.parent.iterdir()}
    assert names == {'pets.py', 'pets_data'}
    assert (out.parent / 'pets_data' / 'overview.png').is_file()
    for words in ('cat', 'broken files', '0.jpg', 'why', 'rate'):
        assert words in text
    assert text.rstrip().endswith(f'python tools/train.py {out}')


@pytest.fixture
def new_config(monkeypatch, capsys):
    """The tool in this process; status and what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    module = pytest.importorskip('new_config')
    # Processes take longer to start than these pictures to check.
    monkeypatch.setattr(module, 'check', lambda path: [])

    def run(*arguments):
        words = ['new_config.py', *map(str, arguments)]
        monkeypatch.setattr('sys.argv', words)
        try:
            module.main()
            status = 0
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_what_pycocotools_prints_is_not_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    module = pytest.importorskip('new_config')
    monkeypatch.setattr(module.DeepCheck, 'run', lambda self, processes: [])
    data = own_data.voc(tmp_path / 'data')
    out = str(tmp_path / 'pets.py')
    monkeypatch.setattr('sys.argv', ['new_config.py', str(data), '--out', out])
    module.main()
    text = capsys.readouterr().out
    assert 'retinanet' in text
    assert 'loading annotations' not in text


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind(tmp_path, new_config, kind):
    write, options = KINDS[kind]
    data = write(tmp_path / 'data')
    out = tmp_path / 'pets.py'
    status, text, error = new_config(data, '--out', out, *options)
    assert status == 0, error
    assert 'classes' in text
    config = load_config(str(out))
    check_data(config, ['train', 'val', 'test'])
    assert config.classes[-2:] == ('cat', 'dog')

    status, _, error = new_config(data, '--out', out, *options)
    assert status == 2
    assert '--overwrite' in error


def empty(root):
    own_data.write_picture(root / '0.jpg', 0)
    return root


def three_pictures(root):
    return own_data.voc(root, number=1)


def one_class_of_pictures(root):
    own_data.class_folders(root)
    shutil.rmtree(root / 'cat')
    return root


def wrong_names(root):
    own_data.coco(root)
    shutil.rmtree(root / 'images')
    own_data.write_picture(root / 'images' / 'other.jpg', 0)
    return root


def missing(root):
    return root


def broken_json(root):
    own_data.coco(root)
    (root / 'annotations' / 'instances.json').write_text('{"images": [')
    return root


@pytest.mark.parametrize(
    'write',
    [
        empty, three_pictures, one_class_of_pictures, wrong_names, missing,
        broken_json,
    ],
)  # fmt: skip
def test_wrong_data_gives_a_line_and_leaves_nothing(
    tmp_path, new_config, write
):
    data = write(tmp_path / 'data')
    out = tmp_path / 'new' / 'folders' / 'pets.py'
    status, text, error = new_config(data, '--out', out)
    assert status == 2, text
    assert error.startswith('error: ')
    assert len(error.splitlines()) == 1
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--algorithm', 'sfpn'], 'is not for detection'),
        (['--algorithm', 'maskrcnn'], 'boxes only'),
        (['--task', 'classification'], 'not for classification'),
        (['--tile', '8'], 'at least 32'),
    ],
)
def test_wrong_choices(tmp_path, new_config, options, words):
    data = own_data.voc(tmp_path / 'data')
    out = tmp_path / 'pets.py'
    status, _, error = new_config(data, '--out', out, *options)
    assert status == 2
    assert words in error
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_places_that_are_refused(tmp_path, new_config):
    data = own_data.voc(tmp_path / 'data')
    other = tmp_path / 'mine_data'
    other.mkdir()
    (other / 'photo.jpg').write_bytes(b'')
    (tmp_path / 'file').write_text('')
    before = names_in(tmp_path)
    for out, words in (
        (data / 'pets.py', 'outside of'),
        (tmp_path / 'mine.py', 'not written by this tool'),
        (tmp_path / 'pets.txt', 'ends in .py'),
        (tmp_path / 'file' / 'pets.py', 'another place'),
    ):
        status, _, error = new_config(data, '--out', out, '--overwrite')
        assert status == 2
        assert words in error
    assert names_in(tmp_path) == before


def test_a_failure_restores_what_was_there(tmp_path, new_config):
    data = own_data.coco(tmp_path / 'data')
    out = tmp_path / 'pets.py'
    assert new_config(data, '--out', out)[0] == 0
    before = names_in(tmp_path)
    assert new_config(data, '--out', out, '--overwrite')[0] == 0
    annotations = data / 'annotations' / 'instances.json'
    content = json.loads(annotations.read_bytes())
    annotations.write_text(json.dumps({**content, 'annotations': []}))
    assert new_config(data, '--out', out, '--overwrite')[0] == 2
    annotations.write_bytes(before[annotations.relative_to(tmp_path)])
    assert names_in(tmp_path) == before

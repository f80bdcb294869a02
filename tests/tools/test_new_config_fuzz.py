"""No tree of files makes tools/new_config.py crash or write elsewhere."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import own_data
from tests.support.fuzz import fuzz
from tests.support.paths import ROOT

LAYOUTS = dict(
    class_folders=lambda root: own_data.class_folders(root, splits=('train',)),
    coco=own_data.coco,
    masks=lambda root: own_data.coco_splits(
        root, mask=lambda box: [own_data.corners(box)]
    ),
    voc=own_data.voc,
    devkit=own_data.voc_devkit,
    csv=own_data.csv_boxes,
    yolo=own_data.yolo,
    yolo_flat=own_data.yolo_flat,
    labelme=lambda root: own_data.labelme(root, kind='polygon'),
    label_maps=own_data.label_maps,
    colours=lambda root: own_data.label_maps(root, kind='colour'),
)

_NAMES = st.one_of(
    st.sampled_from(
        [
            *('0.jpg', '1.JPG', 'x.txt', 'data.yaml', 'classes.txt', 'a.csv'),
            *(
                '0.xml',
                '0.json',
                'train/0.png',
                'masks/0.png',
                'val/cat/9.jpg',
            ),
            *('labels/0.txt', 'images/0.jpg', "it's {{ fileDirname }}/0.jpg"),
            *('Bäume groß/ä b.jpg', ' 0 .jpg', '.hidden', 'test', '0.jpg.jpg'),
        ]
    ),
    st.text(
        st.characters(exclude_characters='/\0', exclude_categories=['Cs']),
        min_size=1,
        max_size=12,
    ).filter(lambda name: name not in ('.', '..')),
)

_CHANGES = st.one_of(
    st.tuples(st.just('remove'), st.integers(0, 99), st.none()),
    st.tuples(st.just('empty folder'), st.integers(0, 99), _NAMES),
    st.tuples(st.just('rename'), st.integers(0, 99), _NAMES),
    st.tuples(st.just('copy'), st.integers(0, 99), _NAMES),
    st.tuples(st.just('write'), st.integers(0, 99), st.binary(max_size=60)),
    st.tuples(st.just('cut'), st.integers(0, 99), st.integers(0, 400)),
    st.tuples(st.just('swap'), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just('link'), _NAMES, st.sampled_from(['..', '.', '0.jpg'])),
)

_OPTIONS = st.sampled_from(
    [
        *([], [], ['--from-scratch'], ['--tile', '32'], ['--seed', '7']),
        *(['--task', 'segmentation'], ['--task', 'classification']),
        *(['--algorithm', 'maskrcnn'], ['--algorithm', 'upernet']),
        ['--batch-size', '3', '--arch', 'b'],
    ]
)


def change(root, kind, which, value):
    """Change a tree of files."""
    files = sorted(path for path in root.rglob('*') if path.is_file())
    if kind == 'link':
        return link(root / which, value)
    if not files:
        return None
    path = files[which % len(files)]
    if kind == 'remove':
        path.unlink()
    elif kind == 'write':
        path.write_bytes(value)
    elif kind == 'cut':
        path.write_bytes(path.read_bytes()[:value])
    elif kind == 'swap':
        other = files[value % len(files)]
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
    else:
        place(root / value, path, kind)
    return None


def link(path, target):
    """A link to a folder outside, or to itself."""
    if not path.exists() and path.parent.is_dir():
        path.symlink_to(target)


def place(new, path, kind):
    """Move or copy a file, or make a folder of the name."""
    if new.exists() or any(p.is_file() for p in new.parents):
        return
    new.parent.mkdir(parents=True, exist_ok=True)
    if kind == 'rename':
        path.rename(new)
    elif kind == 'copy':
        shutil.copyfile(path, new)
    else:
        new.mkdir()


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    """A folder of each layout, made once."""
    root = tmp_path_factory.mktemp('originals')
    for name, make in LAYOUTS.items():
        make(root / name)
    return root


def state(folder):
    """Everything in a folder and below; links are not followed."""
    found = {}
    for at, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(at, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, 'rb') as file:
                    found[path] = file.read()
            else:
                found[path] = None
    return found


@fuzz(20)
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.lists(_CHANGES, max_size=5),
    _OPTIONS,
)
def test_any_tree(originals, monkeypatch, capsys, layout, changes, options):
    place = originals.parent / 'sandbox'
    shutil.rmtree(place, ignore_errors=True)
    data, out = place / 'data', place / 'new' / 'folder' / 'pets.py'
    shutil.copytree(originals / layout, data)
    for item in changes:
        change(data, *item)
    before = state(place)
    words = ['new_config.py', data, '--out', out, *options]
    monkeypatch.setattr('sys.argv', list(map(str, words)))
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    module = pytest.importorskip('new_config')
    # Threads start faster than processes.
    monkeypatch.setattr(
        'mmtransxnet.engine.checks.deep_check.ProcessPoolExecutor',
        ThreadPoolExecutor,
    )
    try:
        module.main()
        status = 0
    except SystemExit as error:
        status = error.code
    error = capsys.readouterr().err
    after = state(place)
    if status:
        assert status == 2
        assert after == before
        (line,) = [row for row in error.splitlines() if 'error:' in row]
        assert line.startswith('error: ')
        return
    new = {path for path in after if path not in before}
    assert {path: after[path] for path in before} == before
    folder = str(out.parent)
    assert all(
        path in (folder, os.path.dirname(folder), str(out))
        or path.startswith(str(out.with_name('pets_data')))
        for path in new
    )
    assert str(out) in new

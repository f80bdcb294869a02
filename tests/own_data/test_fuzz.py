"""No content of an annotation file does harm."""

import json
import shutil
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.support import own_data
from tests.support.fuzz import fuzz

_NUMBERS = st.one_of(
    st.integers(-10, 100),
    st.floats(),
    st.sampled_from([10**400, -(10**30), 1e308, 2**63, True, None, '', '7']),
)
_NAMES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            *('0.jpg', '../secret.jpg', '../../out/x.jpg', '/etc/passwd'),
            *('C:\\x\\0.jpg', '..', '.', '', '\0', 'a' * 300, 'images/0.jpg'),
        ]
    ),
)
_LEAVES = st.one_of(_NUMBERS, _NAMES)
_ANY = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from(['size', 'counts', 'id', 'name', 'bbox', 'points'])
            | st.text(max_size=3),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)

# Where each layout has its annotations, and how the data is made.
_FILES = {
    'coco': (own_data.coco, 'annotations/instances.json'),
    'voc': (own_data.voc, '0.xml'),
    'devkit': (own_data.voc_devkit, 'ImageSets/Main/train.txt'),
    'csv': (own_data.csv_boxes, 'boxes.csv'),
    'yolo': (own_data.yolo, 'labels/train/0.txt'),
    'yaml': (own_data.yolo, 'data.yaml'),
    'classes': (own_data.yolo_flat, 'classes.txt'),
    'labelme': (own_data.labelme, '0.json'),
    'names': (own_data.label_maps, 'classes.txt'),
    'map': (own_data.label_maps, 'masks/0.png'),
    'picture': (own_data.voc, '0.jpg'),
}


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    """One folder of each layout, made once."""
    root = tmp_path_factory.mktemp('originals')
    for name, (make, _) in _FILES.items():
        make(root / name, number=4)
    return root


def survives(originals, name, content, task=None, tile=None):
    """Read and prepare the data with an annotation file replaced."""
    place = originals.parent / 'sandbox'
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(originals / name, place / 'data')
    (place / 'data' / _FILES[name][1]).write_bytes(content)
    before = {p: p.read_bytes() for p in place.rglob('*') if p.is_file()}
    outside = sorted(originals.parent.glob('*'))
    with suppress(UserError):
        prepare(read(place / 'data', task), place / 'out', tile=tile)
    after = {
        p: p.read_bytes()
        for p in place.rglob('*')
        if p.is_file() and place / 'out' not in p.parents
    }
    assert after == before
    assert sorted(originals.parent.glob('*')) == outside


@pytest.mark.parametrize('name', _FILES)
@fuzz(5)
@given(st.data())
def test_any_bytes(originals, name, data):
    _, file = _FILES[name]
    whole = (originals / name / file).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    middle = data.draw(st.binary(max_size=40) | st.text().map(str.encode))
    survives(originals, name, whole[:start] + middle + whole[end:])


_ROWS = {
    'images': dict(id=_NUMBERS, file_name=_NAMES, width=_NUMBERS),
    'annotations': dict(
        image_id=st.just(1) | _NUMBERS,
        category_id=st.just(1) | _NUMBERS,
        bbox=st.lists(_NUMBERS, min_size=3, max_size=5),
        segmentation=_ANY
        | st.lists(st.lists(_NUMBERS, min_size=6, max_size=8), max_size=2)
        | st.fixed_dictionaries(
            dict(
                size=st.just([48, 64]),
                counts=st.text(max_size=9) | st.lists(_NUMBERS, max_size=4),
            )
        ),
        iscrowd=_ANY,
    ),
    'categories': dict(id=_NUMBERS, name=_NAMES),
}


@fuzz(30)
@given(st.data())
def test_any_structure_of_coco(originals, data):
    content = own_data.coco_content([f'{i}.jpg' for i in range(4)])
    key = data.draw(st.sampled_from(sorted(content)))
    rows = content[key]
    row = data.draw(st.sampled_from(rows))
    field = data.draw(st.sampled_from(sorted(_ROWS[key])))
    row[field] = data.draw(_ROWS[key][field] | _ANY)
    if data.draw(st.booleans()):
        rows.append(data.draw(_ANY))
    text = json.dumps(content).encode(errors='replace')
    task = data.draw(st.sampled_from([None, 'segmentation']))
    survives(originals, 'coco', text, task, tile=32)


@fuzz(12)
@given(_ANY, _ANY, _ANY)
def test_any_structure_of_labelme(originals, shape, points, name):
    shapes = [shape, dict(label='cat', points=points)]
    content = dict(shapes=shapes, imagePath=name, imageWidth=64)
    survives(originals, 'labelme', json.dumps(content).encode())


@fuzz(12)
@given(_ANY, _ANY)
def test_any_structure_of_yaml(originals, names, place):
    content = dict(names=names, train=place, path=place)
    survives(originals, 'yaml', json.dumps(content).encode())


@fuzz(12)
@given(st.lists(st.lists(_LEAVES, max_size=9), max_size=4))
@example([[0, *[10**400] * 4], [0, *['1e400'] * 8], ['9' * 5000, 1, 1, 1, 1]])
def test_any_rows(originals, rows):
    lines = [' '.join(str(cell) for cell in row[:9]) for row in rows]
    survives(originals, 'yolo', '\n'.join(lines).encode(errors='replace'))
    header = 'image,xmin,ymin,xmax,ymax,label\n'
    text = header + '\n'.join(line.replace(' ', ',') for line in lines)
    survives(originals, 'csv', text.encode(errors='replace'))


_BOMB = ''.join(
    f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "bomb"}">'
    for i in range(12)
)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('coco', '[' * 200_000 + '"images" "annotations" "categories"'),
        (
            'coco',
            '{"annotations": [], "categories": [], "images": '
            + '[' * 100_000 + ']' * 100_000 + '}',
        ),
        ('coco', '{"images": [], "annotations": [], "categories": []}'),
        (
            'coco',
            '{"annotations": [], "categories": [], "images": ['
            + '9' * 10_000 + ']}',
        ),
        ('labelme', '{"shapes": ' + '{"a": ' * 50_000 + '"imagePath"'),
        ('yaml', 'names: ' + '[' * 20_000),
        (
            'yaml',
            'a: &a [x, x, x, x, x, x, x, x, x]\n'
            + '\n'.join(
                f'{chr(98 + i)}: &{chr(98 + i)} [{f"*{chr(97 + i)}, " * 9}]'
                for i in range(12)
            )
            + '\nnames: *m',
        ),
        ('yaml', 'names: &a [*a]'),
        ('yaml', 'names: [cat, dog]\ntrain: /etc\nval: ../../../..'),
        (
            'voc',
            f'<!DOCTYPE a [{_BOMB}]><annotation>&e11;</annotation>',
        ),
        (
            'voc',
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            '<annotation><filename>&x;</filename></annotation>',
        ),
        ('voc', '<annotation>' * 100_000),
        (
            'voc',
            '<annotation>' + '<a>' * 50_000 + '</a>' * 50_000
            + '</annotation>',
        ),
        ('csv', 'image,xmin,ymin,xmax,ymax,label\n"' + 'x' * 200_000),
        ('classes', '\n'.join(map(str, range(20_000)))),
    ],
)  # fmt: skip
def test_hostile_files(originals, name, content):
    survives(originals, name, content.encode())

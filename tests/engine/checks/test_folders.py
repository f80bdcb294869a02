"""ImageNet, COCO and ADE20K: what is missing, how many, what is broken."""

import json

import pytest
from PIL import Image

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import UserError, inspect_layout, load_config
from tests.support.paths import ROOT

SPLITS = ['train', 'val', 'test']


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (32, 32), 'blue').save(path)


def imagenet(root):
    for split in ('train', 'val'):
        for number in range(1000):
            folder = root / split / f'n{number:08}'
            folder.mkdir(parents=True)
            (folder / 'a.JPEG').write_bytes(JPEG)
    return 'classification/transxnet_t'


def coco(root):
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        picture(root / split / '000000000001.jpg')
        picture(root / split / '000000000002.jpg')
        images = [
            dict(id=n, file_name=f'00000000000{n}.jpg', width=32, height=32)
            for n in (1, 2)
        ]
        box = dict(bbox=[1, 1, 5, 5], area=25, category_id=1, iscrowd=0)
        document = json.dumps(
            dict(
                info='x' * 200,
                images=images,
                annotations=[dict(box, id=n, image_id=n) for n in (1, 2)],
                categories=[dict(id=1, name='person')],
            )
        )
        file = root / f'annotations/instances_{split}.json'
        file.write_text(document)
    return 'detection/maskrcnn_transxnet_s'


def ade(root):
    for split in ('training', 'validation'):
        for name in ('a', 'b'):
            picture(root / f'images/{split}/{name}.jpg')
            picture(root / f'annotations/{split}/{name}.png')
    return 'segmentation/upernet_transxnet_b'


@pytest.fixture(scope='module', autouse=True)
def _jpeg(tmp_path_factory):
    global JPEG
    path = tmp_path_factory.mktemp('picture') / 'a.jpg'
    picture(path)
    JPEG = path.read_bytes()


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch):
    """--data-root sets them for the whole process."""
    for name in ('COCO_ROOT', 'ADE_ROOT', 'IMAGENET_ROOT', 'DIGITS_ROOT'):
        monkeypatch.setenv(name, 'nowhere')


def inspect(make, root, *breakages):
    name = make(root)
    for breakage in breakages:
        breakage(root)
    path = str(ROOT / f'configs/{name}.py')
    return inspect_layout(load_config(path, data_root=str(root)), SPLITS)


@pytest.mark.parametrize(
    ('make', 'count', 'published'),
    [
        (imagenet, 1000, (1_281_167, 50_000)),
        (coco, 2, (118_287, 5_000)),
        (ade, 2, (20_210, 2_000)),
    ],
)
def test_a_small_whole_set(tmp_path, make, count, published):
    """Nothing is wrong, but it is noted that it is a part."""
    layouts = inspect(make, tmp_path)
    assert [one.split for one in layouts] == ['train', 'val']
    assert [one.images for one in layouts] == [count, count]
    assert tuple(one.expected for one in layouts) == published
    for one in layouts:
        assert one.problems == []
        (note,) = one.notes
        assert f'{count} pictures of {one.expected}' in note


def remove(path):
    return lambda root: (root / path).unlink()


def cut(path):
    def breakage(root):
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: len(content) // 2])

    return breakage


@pytest.mark.parametrize(
    ('make', 'breakage', 'told'),
    [
        (coco, remove('train2017/000000000001.jpg'), '1 of 2 annotated'),
        (coco, cut('train2017/000000000001.jpg'), 'cannot be decoded'),
        (
            coco,
            cut('annotations/instances_train2017.json'),
            'instances_train2017.json cannot be read by CocoDataset (JSON',
        ),
        (
            coco,
            remove('annotations/instances_train2017.json'),
            'instances_train2017.json does not exist',
        ),
        (ade, remove('annotations/training/b.png'), '1 pictures without a'),
        (ade, cut('images/training/a.jpg'), 'training/a.jpg cannot be'),
        (
            ade,
            lambda root: [
                (root / f'images/training/{name}.jpg').unlink()
                for name in ('a', 'b')
            ],
            'has no pictures',
        ),
        (
            imagenet,
            remove('train/n00000007/a.JPEG'),
            '1 class folders without pictures: n00000007',
        ),
        (
            imagenet,
            lambda root: (root / 'train/n00000000').rename(root / 'gone'),
            'has 999 class folders, not 1000',
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path, make, breakage, told):
    train, val = inspect(make, tmp_path, breakage)
    (problem,) = train.problems
    assert told in problem
    assert val.problems == []


def test_a_missing_root_is_told_once_a_split(tmp_path):
    path = str(ROOT / 'configs/segmentation/sfpn_transxnet_t.py')
    config = load_config(path, data_root=str(tmp_path / 'none'))
    for one in inspect_layout(config, SPLITS):
        assert one.problems == [f'{tmp_path}/none does not exist']


def test_large_annotations_are_looked_at_from_their_ends(
    tmp_path, monkeypatch
):
    monkeypatch.setattr('mmtransxnet.engine.checks.folders._LARGE', 8)
    (train, _) = inspect(coco, tmp_path)
    assert train.problems == []
    (train, _) = inspect(
        coco, tmp_path / 'cut', cut('annotations/instances_train2017.json')
    )
    assert 'is incomplete' in train.problems[0]


def test_a_config_that_takes_no_root_says_so(tmp_path):
    config = tmp_path / 'fixed.py'
    config.write_text("data_root = 'fixed'")
    with pytest.raises(UserError, match='does not take its data_root'):
        load_config(str(config), data_root='elsewhere')

"""tools/dataset/check.py --deep finds all that a run would stumble over."""

import json
import runpy
import shutil
import sys

import pytest
from mmengine.logging import MMLogger
from PIL import Image

from tests.support import corrupt_files
from tests.support.few_digits import build_few
from tests.support.paths import ROOT
from tests.support.tools import command, run

CONFIGS = {
    'imagenet/train/0': 'classification/transxnet_t_digits',
    'coco/train': 'detection/maskrcnn_transxnet_t_digits',
    'ade/images/validation': 'segmentation/sfpn_transxnet_t_digits',
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    # It keeps the stream it is made with; that of capsys is closed later.
    MMLogger.get_current_instance()
    root = tmp_path_factory.mktemp('deep') / 'digits'
    return build_few(root, size=64, train_images=12, val_images=12)


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / 'digits')


@pytest.fixture
def check(root, monkeypatch, capsys):
    """Run the tool; return its status, its lines and its complaints."""
    monkeypatch.setenv('DIGITS_ROOT', str(root))

    def run(name, *flags):
        config = str(ROOT / f'configs/{name}.py')
        flags = ['--deep', '--workers=2', *flags]
        monkeypatch.setattr(sys, 'argv', ['check.py', config, *flags])
        status = 0
        try:
            runpy.run_path(
                str(ROOT / 'tools/dataset/check.py'), run_name='__main__'
            )
        except SystemExit as ended:  # the interpreter prints a text
            print(ended.code, file=sys.stderr)
            status = 1 if isinstance(ended.code, str) else ended.code
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


@pytest.mark.parametrize('folder', CONFIGS)
def test_every_bad_picture_is_listed_with_its_reason(root, check, folder):
    expected = {}
    paths = sorted((root / folder).iterdir())
    for path, (content, reason) in zip(
        paths, corrupt_files.BAD.values(), strict=False
    ):
        path.unlink()
        path.write_bytes(content)
        expected[path] = reason
    assert len(expected) == len(corrupt_files.BAD)
    status, lines, errors = check(CONFIGS[folder])
    assert status == 1
    assert 'error: ' in errors
    for path, reason in expected.items():
        assert [x for x in lines if x.startswith(f'{path} ') and reason in x]
    assert any(f' checked, {len(expected)} bad' in line for line in lines)


def test_what_is_good_passes(check):
    status, lines, bar = check(CONFIGS['coco/train'])
    assert status == 0
    assert 'checking' in bar
    assert '24 pictures checked, 0 bad' in lines


def test_annotations_of_boxes(root, check):
    path = root / 'coco/annotations/instances_train.json'
    document = json.loads(path.read_bytes())
    changes = [
        dict(bbox=[1, 1, 0, 5]),
        dict(bbox=[64, 1, 5, 5]),
        dict(bbox=[float('nan'), 1, 5, 5]),
        dict(category_id=10),
        dict(image_id=99),
    ]
    for one, change in zip(document['annotations'], changes, strict=False):
        one.update(change)
    document['images'][11]['width'] = 60
    document['images'].append(
        dict(id=13, file_name='13.jpg', width=64, height=64)
    )
    path.write_text(json.dumps(document))
    status, lines, _ = check(CONFIGS['coco/train'])
    assert status == 1
    for told in (
        'annotation 1 of 000001.jpg: no area',
        'outside the picture of 64 x 64',
        'invalid numbers: bbox [nan, 1, 5, 5]',
        'unknown category 10',
        'annotation 5: no picture has the id 99',
        '000012.jpg has 64 x 64 pixels once it is upright and was annotated '
        'as 60 x 64',
        '13.jpg does not exist',
    ):
        assert sum(told in line for line in lines) == 1, told
    assert '25 pictures checked, 7 bad' in lines


def test_label_maps(root, check):
    folder = root / 'ade/annotations/training'
    Image.new('L', (64, 64), 12).save(folder / '000001.png')
    (folder / '000002.png').unlink()
    (folder / '000003.png').write_bytes(corrupt_files.bomb())
    name = CONFIGS['ade/images/validation']
    status, lines, _ = check(name)
    assert status == 1
    for told in (
        '000001.png has unknown labels: 12',
        '000002.png does not exist',
        '000003.png is too large',
    ):
        assert sum(told in line for line in lines) == 1, told
    assert '24 pictures checked, 3 bad' in lines


def test_annotations_that_cannot_be_read_do_not_end_it(root, check):
    path = root / 'coco/annotations/instances_train.json'
    path.write_text('{"images": [{"id": 1}], "annotations": []}')
    status, lines, _ = check(CONFIGS['coco/train'])
    assert status == 1
    assert any('cannot be read (' in line for line in lines)
    assert any(line.startswith('12 pictures checked') for line in lines)


def test_number_of_workers_is_checked(check):
    status, _, errors = check(CONFIGS['coco/train'], '--workers=0')
    assert status == 2
    assert '--workers 0: at least 1' in errors


def test_tool_ends_with_its_status(root):
    """As a user starts it."""
    path = root / 'coco/train/000001.jpg'
    path.unlink()
    path.write_bytes(corrupt_files.bomb())
    done = run(
        command(
            *('dataset/check.py', '--deep', '--workers=1'),
            *('--data-root', root, f'configs/{CONFIGS["coco/train"]}.py'),
        )
    )
    assert done.returncode == 1, done.stderr
    assert 'Traceback' not in done.stderr
    assert f'{path} is too large' in done.stdout

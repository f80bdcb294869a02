"""The builder: determinism, what it refuses, what it leaves behind."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from mmtransxnet.datasets import build_digits
from tests.support.tools import environment, run_python


def tree(root: Path) -> dict[str, str]:
    """Hash of every file under root."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def scenes_of(root: Path) -> dict[str, str]:
    return {
        name: digest
        for name, digest in tree(root).items()
        if name.startswith(('coco/train/', 'ade/')) and 'valid' not in name
    }


ELSEWHERE = """
import dataclasses, sys
from mmtransxnet.datasets import build_digits
from tests.support.tools import environment, run_python
from mmtransxnet.datasets.digits import build
assert 'sklearn' not in sys.modules, 'not lazy'
found = build.load_sources()
few = {name: pool[:12] for name, pool in found.pools.items()}
some = dataclasses.replace(found, pools=few)
build.load_sources = lambda: some
build_digits(sys.argv[1], size=64, train_images=3, val_images=2)
"""


def test_other_process_writes_the_same_bytes(quick_build, tmp_path):
    """Not even the hash seed of Python matters; scikit-learn is lazy."""
    here = quick_build(tmp_path / 'here').root
    run_python(
        ELSEWHERE, tmp_path / 'there', env=environment(PYTHONHASHSEED='7')
    )
    assert tree(tmp_path / 'there') == tree(here)


def test_scene_does_not_depend_on_the_number_of_scenes(quick_build, tmp_path):
    few = scenes_of(quick_build(tmp_path / 'few', train_images=2).root)
    many = scenes_of(quick_build(tmp_path / 'many', train_images=5).root)
    assert len(few) == 6
    assert few == {name: many[name] for name in few}
    firsts = []
    for name in ('few', 'many'):
        path = tmp_path / name / 'coco/annotations/instances_train.json'
        truth = json.loads(path.read_bytes())
        firsts.append([a for a in truth['annotations'] if a['image_id'] <= 2])
    assert firsts[0] == firsts[1]


def test_seed_changes_every_picture_but_not_the_split(quick_build, tmp_path):
    zero = tree(quick_build(tmp_path / 'a', seed=0).root)
    one = tree(quick_build(tmp_path / 'b', seed=1).root)
    assert zero.keys() == one.keys()  # singles are named after their scans
    pictures = [name for name in zero if name.endswith('.jpg')]
    assert len(pictures) == 2 * 5 + 12 * 4 + 12
    assert not [name for name in pictures if zero[name] == one[name]]


def test_no_picture_twice(quick_build, tmp_path):
    """Scenes, renderings and splits have random streams of their own."""
    root = quick_build(tmp_path / 'set').root
    digests = [
        digest
        for name, digest in tree(root).items()
        if name.endswith('.jpg') and not name.startswith('ade')
    ]
    assert len(set(digests)) == len(digests)


def test_layout_and_counts(digits_set):
    root, counts = digits_set.root, digits_set.counts
    for split, ade in (('train', 'training'), ('val', 'validation')):
        number = digits_set.options[f'{split}_images']
        assert counts[split]['scenes'] == number
        scenes = sorted((root / 'coco' / split).iterdir())
        assert [path.name for path in scenes] == [
            f'{index:06d}.jpg' for index in range(1, number + 1)
        ]
        for path in scenes:
            twin = root / 'ade/images' / ade / path.name
            assert twin.read_bytes() == path.read_bytes()
            label = root / 'ade/annotations' / ade / f'{path.stem}.png'
            assert label.is_file()
        annotations = digits_set.coco[split]['annotations']
        assert counts[split]['instances'] == len(annotations)
        singles = list((root / 'imagenet' / split).glob('*/*.jpg'))
        assert counts[split]['singles'] == len(singles)
    assert counts['train']['singles'] + counts['val']['singles'] == 1797


def test_renderings_multiply_training_singles_only(quick_build, tmp_path):
    counts = quick_build(tmp_path / 'set', renderings=3).counts
    assert counts['train']['singles'] == 36
    assert counts['val']['singles'] == 12


def test_second_call_finds_the_set(quick_build, tmp_path):
    first = quick_build(tmp_path / 'set')
    before = (first.root / 'digits.json').stat()
    calls = []
    second = quick_build(
        tmp_path / 'set', progress=lambda *args: calls.append(args)
    )
    assert first.built
    assert not second.built
    assert second.counts == first.counts
    assert not calls
    after = (first.root / 'digits.json').stat()
    assert (after.st_ino, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )


def test_other_options_need_force(quick_build, tmp_path):
    root = quick_build(tmp_path / 'set').root
    before = tree(root)
    with pytest.raises(FileExistsError, match=r'seed 0 instead of 5.*force'):
        quick_build(root, seed=5)
    assert tree(root) == before
    assert quick_build(root, seed=5, force=True).built
    fresh = quick_build(tmp_path / 'fresh', seed=5).root
    assert tree(root) == tree(fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'fresh',
        'set',
    ]


def test_lost_files_are_noticed_and_force_mends(quick_build, tmp_path):
    root = quick_build(tmp_path / 'set').root
    whole = tree(root)
    (root / 'ade/annotations/training/000002.png').unlink()
    with pytest.raises(
        FileExistsError, match=r'annotations/training lacks 1 of 3.*--force'
    ):
        quick_build(root)
    quick_build(root, force=True)
    assert tree(root) == whole


@pytest.mark.parametrize('text', ['', '{', '[]', '{"version": 1}'])
def test_damaged_manifest_is_not_trusted(quick_build, tmp_path, text):
    root = quick_build(tmp_path / 'set').root
    (root / 'digits.json').write_text(text)
    with pytest.raises(FileExistsError, match=r'is damaged.*--force'):
        quick_build(root)
    assert quick_build(root, force=True).built


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('at', [1, 4, 40])
def test_interrupted_build_leaves_nothing(quick_build, tmp_path, error, at):
    def interrupt(done, total):
        if done == at:
            raise error

    with pytest.raises(error):
        quick_build(tmp_path / 'set', progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_interrupted_force_keeps_the_old_set(quick_build, tmp_path):
    root = quick_build(tmp_path / 'set').root
    before = tree(root)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick_build(root, seed=3, force=True, progress=interrupt)
    assert tree(root) == before
    assert list(tmp_path.iterdir()) == [root]


def test_set_appears_at_once(quick_build, tmp_path):
    seen = []
    quick_build(
        tmp_path / 'set',
        progress=lambda done, total: seen.append(
            (done, total, (tmp_path / 'set').exists())
        ),
    )
    total = 3 + 2 + 12 * 4 + 12
    assert seen == [(done, total, False) for done in range(1, total + 1)]


@pytest.mark.parametrize('other_seed', [0, 9])
def test_another_process_finishes_first(quick_build, tmp_path, other_seed):
    """The faster set stays; it is accepted if it is the same."""
    other = quick_build(tmp_path / 'other', seed=other_seed).root
    kept = tree(other)

    def overtake(done, total):
        if done == total:
            other.rename(tmp_path / 'set')

    if other_seed == 0:
        quick_build(tmp_path / 'set', progress=overtake)
    else:
        with pytest.raises(FileExistsError, match='seed 9 instead of 0'):
            quick_build(tmp_path / 'set', progress=overtake)
    assert tree(tmp_path / 'set') == kept
    assert len(list(tmp_path.iterdir())) == 1


def test_copies_where_links_do_not_work(quick_build, tmp_path, monkeypatch):
    linked = tree(quick_build(tmp_path / 'linked').root)

    def refuse(source, target):
        raise PermissionError('no hard links here')

    monkeypatch.setattr(os, 'link', refuse)
    assert tree(quick_build(tmp_path / 'copied').root) == linked


@pytest.mark.parametrize('force', [False, True])
def test_foreign_files_are_never_touched(quick_build, tmp_path, force):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'no digits\.json'):
        quick_build(tmp_path, force=force)
    assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_root_that_is_a_file(quick_build, tmp_path):
    path = tmp_path / 'file'
    path.touch()
    for root in (path, path / 'below'):
        with pytest.raises(OSError, match=r'file.*choose another root'):
            quick_build(root)


def test_root_may_be_empty_nested_or_a_link(quick_build, tmp_path):
    (tmp_path / 'disk').mkdir()
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'disk')
    assert quick_build(link).root == tmp_path / 'disk'
    assert link.is_symlink()
    assert not quick_build(tmp_path / 'disk').built
    assert quick_build(tmp_path / 'a/b/c').root.is_dir()


def test_unwritable_root(quick_build, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('tempfile.TemporaryDirectory', refuse)
    with pytest.raises(
        PermissionError, match=r'cannot write to .*Permission denied.*another'
    ):
        quick_build(tmp_path / 'set')


@pytest.mark.parametrize(
    ('option', 'value', 'remedy'),
    [
        ('size', 63, 'from 64 to 2048'),
        ('size', 100_000, 'from 64 to 2048'),
        ('train_images', 0, 'from 1'),
        ('val_images', -3, 'from 1'),
        ('renderings', 0, 'from 1'),
        ('seed', -1, 'from 0'),
        ('single_size', 10, 'from 18 to 64'),
        ('single_size', 65, 'from 18 to 64'),
    ],
)
def test_bad_option_is_named(tmp_path, option, value, remedy):
    options = {'size': 64, option: value}
    with pytest.raises(ValueError, match=rf'{option} .*{remedy}') as caught:
        build_digits(tmp_path / 'set', **options)
    assert str(value) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [64, 81, 500])
def test_smallest_single_size_of_the_message_works(
    quick_build, tmp_path, size
):
    with pytest.raises(ValueError) as caught:
        quick_build(tmp_path / 'set', size=size, single_size=1)
    smallest = int(str(caught.value).split()[-3])
    with pytest.raises(ValueError):
        quick_build(tmp_path / 'set', size=size, single_size=smallest - 1)
    assert quick_build(tmp_path / 'set', size=size, single_size=smallest).built


@pytest.mark.parametrize(
    ('module', 'package'),
    [
        ('sklearn.datasets', 'scikit-learn'),
        ('pycocotools.mask', 'pycocotools'),
    ],
)
def test_without_what_it_is_made_with(tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f'pip install {package}'):
        build_digits(tmp_path / 'set')
    assert not list(tmp_path.iterdir())


def test_moved_set_is_still_found(quick_build, tmp_path):
    root = quick_build(tmp_path / 'set').root
    shutil.move(root, tmp_path / 'elsewhere')
    assert not quick_build(tmp_path / 'elsewhere').built

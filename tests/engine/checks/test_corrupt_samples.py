"""Pictures and annotations that are unfit: an error, or skipped and listed."""

import json
import pickle
import shutil

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmtransxnet.engine import UserError, check_data, load_config
from mmtransxnet.engine.checks.corrupt_samples import (
    Record,
    guarded_dataset,
    record_of,
)
from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_picture,
)
from mmtransxnet.utils.errors import report_user_errors
from tests.support import corrupt_files
from tests.support.paths import ROOT

CONFIGS = {
    'mmpretrain': 'classification/transxnet_t_digits',
    'mmdet': 'detection/maskrcnn_transxnet_t_digits',
    'mmseg': 'segmentation/sfpn_transxnet_t_digits',
}
PICTURES = {
    'mmpretrain': 'imagenet/train/0',
    'mmdet': 'coco/train',
    'mmseg': 'ade/images/training',
}
TASKS = list(CONFIGS)
ANNOTATIONS = 'coco/annotations/instances_train.json'


@pytest.fixture(scope='module')
def whole(digits, tmp_path_factory):
    """A small set with a few singles only."""
    root = tmp_path_factory.mktemp('few') / 'digits'
    shutil.copytree(digits, root)
    for folder in root.glob('imagenet/*/*'):
        if folder.is_dir():
            for path in sorted(folder.iterdir())[2:]:
                path.unlink()
    return root


@pytest.fixture
def root(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / 'digits')


@pytest.fixture
def run(root, monkeypatch):
    """The config of a task on the copy."""
    monkeypatch.setenv('DIGITS_ROOT', str(root))

    def load(scope, **bad_data):
        config = load_config(str(ROOT / f'configs/{CONFIGS[scope]}.py'))
        config.bad_data.update(bad_data)
        return config

    return load


def pictures(root, scope):
    return sorted((root / PICTURES[scope]).iterdir())


def put(path, content):
    """Write a file of its own: the builder's are linked."""
    path.unlink()
    path.write_bytes(content)


def build(config, split='train', policy='error', limit=20, folder=None):
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return guarded_dataset(
            config[f'{split}_dataloader'].dataset.to_dict(),
            policy,
            limit,
            folder and str(folder),
            evaluates=split != 'train',
        )


def errors(capsys):
    """Lines of errors, apart from what else is logged there."""
    lines = capsys.readouterr().err.splitlines()
    assert not any('Traceback' in line for line in lines)
    return [line for line in lines if line.startswith('error:')]


def same(one, other):
    return torch.equal(one['inputs'], other['inputs'])


# ------------------------------------------------------------- one picture
@pytest.mark.parametrize('kind', corrupt_files.BAD)
@pytest.mark.parametrize('decode', [False, True])
def test_bad_picture_is_told_with_its_reason(tmp_path, kind, decode):
    content, reason = corrupt_files.BAD[kind]
    path = tmp_path / 'x.png'
    path.write_bytes(content)
    if kind == 'damaged PNG' and not decode:
        # It has its header and its end; its pipeline fails first.
        assert check_picture(str(path)) == (96, 96)
        return
    with pytest.raises(CorruptSampleError) as caught:
        check_picture(str(path), decode)
    assert str(caught.value).startswith(f'{path} ')
    assert reason in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', corrupt_files.GOOD)
def test_unusual_picture_is_read_as_it_looks(tmp_path, kind):
    content, expected = corrupt_files.GOOD[kind]
    path = tmp_path / 'x.png'
    path.write_bytes(content)
    assert check_picture(str(path), decode=True) == (96, 96)
    read = mmcv.imread(str(path))[..., ::-1]
    assert np.abs(read.astype(int) - expected).mean() < 3


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_size_is_that_of_the_upright_picture(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 8
    path = tmp_path / 'x'
    Image.new('RGB', (40, 30)).save(path, kind, exif=exif)
    assert check_picture(str(path)) == (30, 40)
    assert mmcv.imread(str(path)).shape == (40, 30, 3)


def test_missing_picture(tmp_path):
    with pytest.raises(CorruptSampleError, match=r'gone\.png does not exist'):
        check_picture(str(tmp_path / 'gone.png'))


# ---------------------------------------------------- each task, each policy
@pytest.mark.parametrize('scope', TASKS)
def test_bad_picture_in_training(root, run, tmp_path, scope):
    bad, good = pictures(root, scope)[:2]
    config = run(scope)
    strict = build(config)
    for kind, (content, reason) in corrupt_files.BAD.items():
        put(bad, content)
        with pytest.raises(UserError) as caught:
            strict[0]
        assert str(bad) in str(caught.value), kind
        assert reason in str(caught.value)
        assert 'bad_data.policy=skip' in str(caught.value)

        record = Record(tmp_path / kind, 20)
        lenient = build(config, policy='skip', folder=record.folder)
        assert lenient[0]['data_samples'].img_path == str(good), kind
        (told,) = record.read()
        assert told.startswith(f'{bad} ')


@pytest.mark.parametrize('scope', TASKS)
def test_unusual_picture_in_training(root, run, scope):
    path = pictures(root, scope)[0]
    config = run(scope)
    config.train_dataloader.dataset.pipeline = [
        step
        for step in config.train_pipeline
        if step.type not in ('Resize', 'ColorJitter')
    ]
    dataset = build(config)
    for kind, (content, expected) in corrupt_files.GOOD.items():
        put(path, content)
        read = dataset[0]['inputs'].numpy()[::-1]  # blue comes first
        difference = np.abs(read.transpose(1, 2, 0).astype(int) - expected)
        assert difference.mean() < 3, kind


@pytest.mark.parametrize('scope', TASKS)
@pytest.mark.parametrize('policy', ['error', 'skip'])
def test_nothing_is_replaced_in_an_evaluation(
    root, run, tmp_path, scope, policy
):
    folder = PICTURES[scope].replace('training', 'validation')
    bad = min((root / folder.replace('train', 'val')).iterdir())
    put(bad, corrupt_files.half(bad.read_bytes()))
    dataset = build(run(scope), 'val', policy, folder=tmp_path / 'bad')
    with pytest.raises(UserError, match='needs all pictures') as caught:
        dataset[0]
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize('scope', TASKS)
def test_too_many_are_an_error_that_names_them(root, run, tmp_path, scope):
    bad = pictures(root, scope)[:2]
    for path in bad:
        put(path, b'')
    dataset = build(run(scope), 'train', 'skip', 1, tmp_path / 'bad')
    with pytest.raises(UserError, match=r'2 are more than .*limit=1') as told:
        dataset[0]
    assert all(str(path) in str(told.value) for path in bad)
    assert str(tmp_path / 'bad') in str(told.value)


@pytest.mark.parametrize('scope', TASKS)
def test_replacement_depends_on_the_index_alone(root, run, tmp_path, scope):
    """Known already or not, first or last, in a worker or not."""
    *_, last = pictures(root, scope)
    put(last, b'')
    config = run(scope)
    samples = []
    for number, workers in enumerate([0, 2, 2]):
        # The last one starts with what the second has found.
        folder = tmp_path / f'bad{min(number, 1)}'
        dataset = build(config, policy='skip', folder=folder)
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(
            dataset, num_workers=workers, collate_fn=pseudo_collate
        )
        samples.append([batch['data_samples'][0].img_path for batch in loader])
        assert len(Record(folder, 20).read()) == 1
    assert samples[0] == samples[1] == samples[2]
    assert str(last) not in samples[0]
    assert len(samples[0]) == len(dataset)


def test_error_of_a_worker_is_one_line(root, run, capsys):
    bad = pictures(root, 'mmseg')[0]
    put(bad, b'')
    loader = torch.utils.data.DataLoader(
        build(run('mmseg')), num_workers=1, collate_fn=pseudo_collate
    )
    with pytest.raises(SystemExit) as ended, report_user_errors():
        list(loader)
    assert ended.value.code == 2
    (line,) = errors(capsys)
    assert line.startswith(f'error: bad data: {bad} is empty. Fix it')


def test_error_of_a_builder_is_one_line(root, run, capsys):
    spoil_boxes(root, bbox=[0, 0, 0, 9])
    config = run('mmdet')
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        pytest.raises(SystemExit),
        report_user_errors(),
    ):
        DATASETS.build(
            dict(
                type='guarded_dataset',
                dataset=config.train_dataloader.dataset,
                **config.bad_data | dict(policy='error'),
            )
        )
    (line,) = errors(capsys)
    assert line.startswith('error: bad data: 1 bad boxes: ')


def test_sound_picture_whose_pipeline_fails_is_not_called_bad(root, run):
    config = run('mmseg')
    config.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(0, 0)),
    ]
    with pytest.raises(RuntimeError, match='is valid, but its pipeline'):
        build(config, policy='skip', folder=root)[0]


def test_guarded_dataset_is_that_of_the_library(root, run):
    """Wrappers, samplers and other processes take it for what it is."""
    from mmdet.datasets import CocoDataset

    dataset = build(run('mmdet'))
    assert isinstance(dataset, CocoDataset)
    assert same(pickle.loads(pickle.dumps(dataset))[1], dataset[1])
    bad = pictures(root, 'mmdet')[1]
    put(bad, b'')
    part = dataset.get_subset([1])
    with pytest.raises(UserError, match='is empty'):
        part[0]


# ------------------------------------------------------------- annotations
def spoil_boxes(root, **changes):
    """Change the first annotation; return how many there are."""
    path = root / ANNOTATIONS
    document = json.loads(path.read_bytes())
    document['annotations'][0].update(changes)
    path.write_text(json.dumps(document))
    return len(document['annotations'])


BOXES = {
    'no width': (dict(bbox=[5, 5, 0, 9]), 'no area'),
    'no area': (dict(area=0), 'no area'),
    'negative': (dict(bbox=[5, 5, -3, 9]), 'no area'),
    'outside': (dict(bbox=[96, 5, 9, 9]), 'outside the picture of 96 x 96'),
    'nan': (dict(bbox=[float('nan'), 5, 9, 9]), 'invalid numbers'),
    'infinite': (dict(bbox=[5, 5, float('inf'), 9]), 'invalid numbers'),
    'three': (dict(bbox=[5, 5, 9]), 'invalid numbers'),
    'category': (dict(category_id=77), 'unknown category 77'),
}


@pytest.mark.parametrize(
    ('split', 'kind'), [*(('train', kind) for kind in BOXES), ('val', 'nan')]
)
def test_bad_box(root, run, tmp_path, kind, split):
    changes, reason = BOXES[kind]
    config = run('mmdet')
    loader = config[f'{split}_dataloader'].dataset
    # The same annotations for both.
    loader.update(ann_file=ANNOTATIONS, data_prefix=dict(img='coco/train/'))
    count = spoil_boxes(root, **changes)
    with pytest.raises(UserError) as caught:
        build(config, split)
    assert reason in str(caught.value)
    assert f'{root / ANNOTATIONS}: annotation 1 of 000001.jpg' in str(
        caught.value
    )
    dataset = build(config, split, 'skip', folder=tmp_path)
    infos = map(dataset.get_data_info, range(len(dataset)))
    assert sum(len(info['instances']) for info in infos) == count - 1
    with pytest.raises(UserError, match='1 are more than'):
        build(config, split, 'skip', limit=0, folder=tmp_path)


def test_box_that_sticks_out_is_cut(root, run):
    spoil_boxes(root, bbox=[80, 80, 30, 30])
    config = run('mmdet')
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (96, 96)
    instances = build(config)[0]['data_samples'].gt_instances
    assert instances.bboxes.tensor[0].tolist() == [80, 80, 96, 96]


def test_picture_of_another_size_than_annotated(root, run):
    """As one that is turned by its EXIF data and was annotated lying."""
    path = pictures(root, 'mmdet')[0]
    path.unlink()
    Image.new('RGB', (96, 40)).save(path)
    with pytest.raises(UserError, match=r'96 x 40 .* annotated as 96 x 96'):
        build(run('mmdet'))[0]


LABELS = {
    'unknown': (np.full((96, 96), 12, 'uint8'), 'unknown labels: 12'),
    'deep': (np.full((96, 96), 258, 'uint16'), 'unknown labels: 258'),
    'colour': (np.zeros((96, 96, 3), 'uint8'), 'has 3 channels'),
    'size': (np.ones((96, 40), 'uint8'), '40 x 96 pixels, its picture 96 x'),
}


@pytest.mark.parametrize('kind', [*LABELS, 'missing', 'truncated', 'bomb'])
def test_bad_label_map(root, run, tmp_path, kind):
    path = root / 'ade/annotations/training/000001.png'
    if kind in LABELS:
        Image.fromarray(LABELS[kind][0]).save(path)
        reason = LABELS[kind][1]
    elif kind == 'missing':
        path.unlink()
        reason = 'does not exist'
    else:
        half = corrupt_files.half(path.read_bytes())
        path.write_bytes(half if kind == 'truncated' else corrupt_files.bomb())
        reason = 'cannot be decoded' if kind == 'truncated' else 'too large'
    config = run('mmseg')
    with pytest.raises(UserError) as caught:
        build(config)[0]
    assert f'{path} ' in str(caught.value)
    assert reason in str(caught.value)
    build(config, policy='skip', folder=tmp_path / 'bad')[0]
    assert len(Record(tmp_path / 'bad', 20).read()) == 1


@pytest.mark.parametrize(
    ('value', 'label'), [(0, 255), (1, 0), (11, 10), (255, 255)]
)
def test_known_labels(root, run, value, label):
    """Other, background, the last digit and what is ignored."""
    path = root / 'ade/annotations/training/000001.png'
    Image.fromarray(np.full((96, 96), value, 'uint8')).save(path)
    found = build(run('mmseg'))[0]['data_samples'].gt_sem_seg.data.unique()
    assert found.tolist() == [label]


def test_labels_of_some_classes_only(root, run):
    """The file has the numbers of all classes."""
    config = run('mmseg')
    config.train_dataloader.dataset.type = 'ADE20KDataset'
    config.train_dataloader.dataset.metainfo = dict(classes=('sky', 'tree'))
    config.train_dataloader.dataset.pop('reduce_zero_label')
    config.train_dataloader.dataset.img_suffix = '.jpg'
    path = root / 'ade/annotations/training/000001.png'
    Image.fromarray(np.full((96, 96), 150, 'uint8')).save(path)
    dataset = build(config)
    assert dataset[0]['data_samples'].gt_sem_seg.data.unique() == 255
    Image.fromarray(np.full((96, 96), 151, 'uint8')).save(path)
    with pytest.raises(UserError, match='unknown labels: 151'):
        dataset[0]


# ------------------------------------------------------------- the settings
@pytest.mark.parametrize('scope', TASKS)
def test_before_a_run_only_what_is_skipped_is_let_pass(root, run, scope):
    for path in pictures(root, scope)[:2]:
        put(path, b'')
    check_data(run(scope, policy='skip'), ['train', 'val'])
    with pytest.raises(UserError, match=r'is empty.*bad_data\.policy=skip'):
        check_data(run(scope, policy='error'), ['train'])
    if scope == 'mmdet':  # the same in an evaluation
        config = run(scope, policy='skip')
        config.val_dataloader = config.train_dataloader
        with pytest.raises(UserError, match='is empty'):
            check_data(config, ['val'])


@pytest.mark.parametrize(
    ('settings', 'told'),
    [
        (dict(policy='ignore'), "'ignore' is not one of error, skip"),
        (dict(limit=-1), 'bad_data.limit: -1'),
        (dict(limit='many'), "bad_data.limit: 'many'"),
    ],
)
def test_settings_are_checked(run, settings, told):
    with pytest.raises(UserError, match=told):
        record_of(run('mmseg', **settings))


def test_record_survives_a_kill_and_counts_once(tmp_path):
    record = Record(tmp_path, 2)
    (tmp_path / 'other-1.jsonl').write_text('"a"\n"b"\n"c is cut o')
    record.add('a')
    assert record.read() == ['a', 'b']
    with pytest.raises(UserError, match=r'3 are more than bad_data\.limit=2'):
        record.add('c')
    with pytest.raises(UserError, match='3 are more'):  # another process
        Record(tmp_path, 2).add('a')
    record.clear()
    assert record.read() == []

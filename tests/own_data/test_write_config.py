"""Written configs are read, checked and trained by the suite."""

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmtransxnet.engine import check_data, load_config
from mmtransxnet.engine.checks.deep_check import DeepCheck
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
)
from mmtransxnet.own_data.decisions import decide
from mmtransxnet.own_data.recipes import ALGORITHMS
from mmtransxnet.own_data.write_config import CLASSES as FILE_OF_CLASSES
from mmtransxnet.own_data.write_config import (
    check_path,
    config_text,
    write_config,
)
from mmtransxnet.utils.build import build_model
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.matching import match_weights
from tests.support.models import MICRO, fill_by_name, micro
from tests.support.paths import ROOT
from tests.support.prepared_data import CLASSES, prepared
from tests.support.suite_configs import build


def written(folder: Path, algorithm: str, **more):
    """Prepared data, the choices, and the config that was written."""
    choices = {
        key: more.pop(key)
        for key in ('arch', 'batch_size', 'from_scratch')
        if key in more
    }
    task = ALGORITHMS[algorithm].task
    data = prepared(folder / 'data', task, masks=True, **more)
    made = decide(data, algorithm, **choices)
    path = folder / 'config.py'
    write_config(data, made, path)
    return data, made, path


def shrink(config) -> None:
    """The micro backbone and few proposals."""
    model, channels = config.model, MICRO['embed_dims']
    model.backbone.update(arch=micro(), init_cfg=None, image_size=64)
    reader = model.get('neck') or model.get('decode_head')
    if 'in_channels' in reader:
        reader.in_channels = channels[-len(reader.in_channels) :]
    if model.get('auxiliary_head'):
        model.auxiliary_head.in_channels = channels[2]
    if config.default_scope == 'mmpretrain':
        model.head.in_channels = channels[-1]
    if 'rpn_proposal' in (model.get('train_cfg') or {}):
        model.train_cfg.rpn_proposal.update(nms_pre=64, max_per_img=16)
        model.test_cfg.rpn.update(nms_pre=64, max_per_img=16)


def first_batch(config, split: str):
    """The first batch of a split, loaded in this process."""
    loader = config[f'{split}_dataloader']
    loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


@pytest.mark.parametrize(
    'algorithm', ['classifier', 'retinanet', 'maskrcnn', 'sfpn']
)
def test_trains_a_step(tmp_path, algorithm):
    _, made, path = written(tmp_path, algorithm, test=2)
    config = load_config(str(path))
    check_data(config, ['train', 'val', 'test'])
    deep = DeepCheck(config)
    assert len(deep.samples) == 14
    assert not deep.problems + deep.unchecked

    shrink(config)
    model = revert_sync_batchnorm(build(config))
    fill_by_name(model.backbone)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert wrapper.optimizer.param_groups[0]['lr'] == made['rate']
    before = [p.detach().clone() for p in model.parameters()]
    model.train()
    losses = model.train_step(first_batch(config, 'train'), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before, model.parameters(), strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)

    model.eval()
    with torch.no_grad():
        results = model.test_step(first_batch(config, 'test'))
    assert len(results) == 2


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_is_short_and_explains_itself(tmp_path, algorithm):
    _, made, path = written(tmp_path, algorithm)
    lines = path.read_text().splitlines()
    # Paths cannot be broken.
    assert all(len(line) <= 79 for line in lines if '/' not in line)
    code = [line for line in lines if line and not line.startswith('#')]
    assert len(code) < 60
    comments = ' '.join(
        line.strip().removeprefix('# ') for line in lines if '#' in line
    )
    for choice in made.choices:
        if choice.name not in ('scale', 'warmup', 'interval'):
            assert choice.reason in comments, choice.name


@pytest.mark.parametrize('algorithm', ['classifier', 'sfpn', 'retinanet'])
def test_published_weights_fill_all_but_the_heads(tmp_path, algorithm):
    """Weights of a model with the published classes, no file at hand."""
    _, made, path = written(tmp_path, algorithm)
    config = load_config(str(path))
    base = load_config(str(ROOT / 'configs' / made.base))
    published = build_model(base, 'meta').state_dict()
    match = match_weights(
        published, build_model(config, 'meta').state_dict(), config.load_allow
    )
    match.require('published', 'the model')
    assert match.fresh
    assert config.load_from == made['weights']


def test_from_scratch_needs_no_file(tmp_path):
    for algorithm in ('retinanet', 'classifier'):
        folder = tmp_path / algorithm
        _, _, path = written(folder, algorithm, from_scratch=True)
        config = load_config(str(path))
        assert not config.load_from
        assert not config.model.backbone.get('init_cfg')
        assert config.model.backbone.layer_scale_init_value == 0.3


def test_group_norm_is_for_heads_from_scratch(tmp_path):
    """Published weights do not have it."""
    for scratch, norm in (
        (True, dict(type='GN', num_groups=32)),
        (False, None),
    ):
        folder = tmp_path / str(scratch)
        _, _, path = written(folder, 'retinanet', from_scratch=scratch)
        assert load_config(str(path)).model.bbox_head.get('norm_cfg') == norm


@pytest.mark.parametrize('algorithm', ['sfpn', 'upernet'])
def test_weights_of_classes_are_in_all_heads(tmp_path, algorithm):
    data, made, path = written(tmp_path, algorithm)
    _, weight = made['class_weight']
    model = load_config(str(path)).model
    for head in filter(None, (model.decode_head, model.get('auxiliary_head'))):
        assert head.loss_decode.class_weight == [weight, 1.0, 1.0]
        assert len(data.collection.classes) == 3


@pytest.mark.parametrize('arch', 'sb')
def test_other_sizes(tmp_path, arch):
    for algorithm in ALGORITHMS:
        _, _, path = written(tmp_path / algorithm, algorithm, arch=arch)
        config = load_config(str(path))
        assert config.model.backbone.arch == arch
        build(config, 'meta')


def test_all_heads_have_the_classes(tmp_path):
    for algorithm in ALGORITHMS:
        names = tuple(f'kind "{number}" of tree' for number in range(80))
        folder = tmp_path / algorithm
        data, _, path = written(folder, algorithm, classes=names, train=90)
        config = load_config(str(path))
        init_default_scope(config.default_scope)
        dataset = config.train_dataloader.dataset
        assert tuple(dataset.metainfo.classes) == names
        listed = (data.folder / FILE_OF_CLASSES).read_text().splitlines()
        assert listed == list(names)
        model = build_model(config, 'meta')
        counts = {
            module.num_classes
            for module in model.modules()
            if getattr(module, 'num_classes', None)
            and 'RPN' not in str(type(module))
        }
        assert counts == {80}, algorithm


def test_the_environment_names_the_data(tmp_path, monkeypatch):
    data, _, path = written(tmp_path, 'retinanet')
    moved = tmp_path / 'moved'
    data.picture_root.rename(moved)
    with pytest.raises(UserError, match='export DATA_ROOT'):
        check_data(load_config(str(path)), ['train'])
    monkeypatch.setenv('DATA_ROOT', str(moved))
    check_data(load_config(str(path)), ['train'])
    monkeypatch.delenv('DATA_ROOT')
    monkeypatch.setenv('DATA_ROOT', 'restored afterwards')
    check_data(load_config(str(path), data_root=str(moved)), ['train'])


def test_names_cannot_become_code(tmp_path):
    names = (
        "a'b", '{{ fileDirname }}', "\\'); x = 1 #", 'two\nlines', '{{$X:1}}',
        '{{_base_.model}}',
    )  # fmt: skip
    folder = tmp_path / "odd (name) [it's] {{ fileBasename }}"
    data = prepared(
        folder / 'data', DETECTION, classes=names, out=tmp_path / 'config_data'
    )
    data.collection.kind = 'one\n{{ fileDirname }}\nkind'
    path = tmp_path / 'config.py'
    write_config(data, decide(data), path)
    ast.parse(path.read_text())
    config = load_config(str(path))
    assert tuple(config.classes) == names
    assert config.data_root == str(folder / 'data')
    check_data(config, ['train', 'val'])


def test_tiles_lie_beside_the_config(tmp_path):
    """So that the config needs no other folder."""
    out = tmp_path / 'config_data'
    data = prepared(out / 'tiles', SEGMENTATION, out=out)
    data = dataclasses.replace(
        data,
        tile=64,
        collection=dataclasses.replace(
            data.collection, root=tmp_path / 'elsewhere'
        ),
    )
    path = tmp_path / 'config.py'
    write_config(data, decide(data), path)
    assert 'elsewhere' not in path.read_text()
    assert 'in tiles of 64' in path.read_text()
    out.parent.joinpath('moved').mkdir()
    path = path.rename(tmp_path / 'moved' / 'config.py')
    out.rename(tmp_path / 'moved' / 'config_data')
    check_data(load_config(str(path)), ['train', 'val'])


def test_pictures_that_training_leaves_out_are_said(tmp_path):
    data = prepared(tmp_path / 'data', DETECTION)
    whole = config_text(data, decide(data), tmp_path / 'config.py')
    assert 'filter_empty_gt' not in whole
    first = data.collection.pictures[0]
    data.collection.pictures[0] = dataclasses.replace(first, objects=())
    text = config_text(data, decide(data), tmp_path / 'config.py')
    assert '# Objects: 1 of 8 training pictures have none' in text


def test_a_path_inside_a_checkout_is_relative(tmp_path):
    data = prepared(tmp_path / 'data', CLASSIFICATION)
    made = decide(data)
    inside = config_text(data, made, ROOT / 'my_configs' / 'config.py')
    assert "_base_ = '../configs/classification/transxnet_t.py'" in inside
    outside = config_text(data, made, tmp_path / 'config.py')
    assert f"_base_ = '{ROOT}/configs/" in outside


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('trees.yaml', r'ends in \.py'),
        ('trees.v2.py', 'no dot'),
        ("it's/trees.py", 'quotes'),
        ('{x}/trees.py', 'quotes'),
    ],
)
def test_paths_that_mmengine_cannot_read(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        check_path(tmp_path / name)


def test_classes_of_the_metrics(tmp_path):
    """One class more than a metric would need."""
    _, _, path = written(tmp_path, 'classifier', classes=CLASSES[:2])
    assert load_config(str(path)).val_evaluator.topk == (1,)

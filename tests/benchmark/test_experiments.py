"""Experiments on the embedded digits: trials, networks, recipes, tables."""

import json

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mmtransxnet.benchmark.experiments import claims, own_data, small_data
from mmtransxnet.benchmark.experiments.letters import (
    FONTS,
    LETTERS,
    SINGLES,
    build_letters,
)
from mmtransxnet.benchmark.experiments.results import (
    claims_table,
    difference,
    own_data_table,
    small_data_table,
    spread,
    write_claims,
    write_own_data,
    write_small_data,
)
from mmtransxnet.benchmark.experiments.small_net import ARCH
from mmtransxnet.benchmark.experiments.trials import read_records, run_trials
from mmtransxnet.benchmark.own_kinds import KINDS
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
)
from mmtransxnet.own_data.decisions import decide
from mmtransxnet.own_data.write_config import write_config
from mmtransxnet.utils.build import build_model
from mmtransxnet.utils.errors import UserError
from tests.support.prepared_data import prepared


def test_trials_resume(tmp_path):
    """What ended is kept, also if a later trial fails; nothing runs twice."""
    path = tmp_path / 'new/trials.jsonl'
    trials = [dict(network='full', seed=seed) for seed in range(3)]
    done = []

    def work(trial):
        done.append(trial['seed'])
        if done == [0, 1]:
            raise RuntimeError('the machine went down')
        return dict(accuracy=10.0 * trial['seed'])

    lines = []
    with pytest.raises(RuntimeError):
        run_trials(trials, path, work, lines.append)
    assert [r['trial']['seed'] for r in read_records(path)] == [0]
    run_trials(trials, path, work, lines.append, minutes=0)
    assert done == [0, 1]
    assert lines[-1] == '0 minutes are over'
    run_trials(trials, path, work, lines.append)
    assert done == [0, 1, 1, 2]
    assert lines[-1] == '2/2 network full, seed 2: accuracy 20.0'
    run_trials(trials, path, work, lines.append)
    assert done == [0, 1, 1, 2]
    assert lines[-1] == '3 of 3 trials are known'
    with path.open('a') as file:
        file.write('{"trial": ')
    with pytest.raises(UserError, match='line 4 is not a record'):
        run_trials(trials, path, work, lines.append)


@pytest.mark.parametrize('name', claims.NETWORKS)
def test_networks_differ_in_one_part(name):
    config = claims.config_of(name)
    model = build_model(config)
    image = torch.randn(2, 3, 64, 64)
    model(image, mode='tensor')[-1].mean().backward()
    full = claims.costs_of(claims.FULL)
    costs = claims.costs_of(name)
    if name == claims.FULL:
        assert costs == full
        return
    # Every part is small: what differs is the part, not the size.
    for count, of_all in zip(costs.values(), full.values(), strict=True):
        assert 0.9 * of_all < count < of_all


def test_trials_of_claims():
    trials = claims.list_trials(5)
    assert len(trials) == 5 * len(claims.NETWORKS)
    assert {t['seed'] for t in trials[: len(claims.NETWORKS)]} == {0}
    assert len(claims.list_speed_trials(2)) == 2 * len(claims.NETWORKS)


def claim(name, seed, accuracy):
    return dict(
        trial=dict(network=name, seed=seed),
        result={'accuracy/top1': accuracy},
    )


def write_lines(path, records):
    path.write_text(''.join(json.dumps(r) + '\n' for r in records))


def test_table_of_claims(tmp_path):
    assert claims_table(tmp_path) == 'Not measured yet.\n'
    records = [
        claim(name, seed, accuracy + seed)
        for name, accuracy in zip(
            claims.NETWORKS, [70, 60, 70.5, 71, 72, 80], strict=True
        )
        for seed in range(3)
    ]
    write_lines(tmp_path / 'trials.jsonl', records)
    speed = [
        dict(trial=dict(network=n, round=0), result=dict(seconds=s))
        for n, s in (('full', 3.0), ('static', 2.0))
    ]
    write_lines(tmp_path / 'speed.jsonl', speed)
    path = tmp_path / 'experiments/claims.json'
    write_claims(tmp_path, path, dict(torch='2'))
    lines = claims_table(tmp_path).splitlines()
    assert lines[0] == 'Measured with torch 2.'
    assert lines[2].startswith('| network | top-1, 3 seeds |')
    full, static, no_attention = lines[4:7]
    assert full.startswith('| full network | 71.0 ± 1.0 |  |  | 6')
    assert full.endswith('| not measured | 1.00x to 1.00x |')
    assert '| 61.0 ± 1.0 | -10.0 | yes |' in static
    assert static.endswith('| 1.50x to 1.50x |')
    assert '| +0.5 | no |' in no_attention
    path.write_text('{}')
    with pytest.raises(UserError, match='measure again or remove it'):
        claims_table(tmp_path)


def test_spread():
    assert spread([1.0, 3.0]) == '2.0 ± 1.4'
    assert spread([1.0]) == '1.0 (one run)'
    # Each varies by 1, their difference by the root of 2.
    assert difference([1.0, 2.0, 3.0], [2.3, 3.3, 4.3]) == ('-1.3', 'no')
    assert difference([1.0, 2.0, 3.0], [2.5, 3.5, 4.5]) == ('-1.5', 'yes')
    assert difference([1.0], [2.0, 3.0]) == ('-1.5', 'one run')


def test_pictures_of_trials():
    """As many of each letter; other pictures for another seed."""
    few = small_data.pictures_of('classification', 10, 1)
    many = small_data.pictures_of('classification', 200, 1)
    assert len(few) == 10
    assert set(few) < set(many)
    assert not set(many) & set(
        small_data.pictures_of('classification', 200, 2)
    )
    assert {i // SINGLES['train'] for i in few} == set(range(len(LETTERS)))
    assert max(small_data.pictures_of('detection', 200, 2)) == 599
    assert not set(FONTS['train']) & set(FONTS['val'])


def rates_of(config):
    """Learning rates by parameter."""
    model = build_model(config)
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=config.optim_wrapper.get(
                'constructor', 'DefaultOptimWrapperConstructor'
            ),
            optim_wrapper_cfg=dict(
                type='OptimWrapper',
                optimizer=config.optim_wrapper.optimizer.to_dict(),
            ),
            paramwise_cfg=config.optim_wrapper.get('paramwise_cfg'),
        )
    )(model)
    rates = {
        id(p): group['lr']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if p.requires_grad
    }
    return {
        name: rates[id(p)]
        for name, p in model.named_parameters()
        if p.requires_grad
    }


@pytest.mark.parametrize('task', small_data.TASKS)
def test_recipes_are_what_they_say(task, tmp_path):
    trial = dict(task=task, pictures=10, seed=0, iterations=20)

    def config_of(recipe):
        return small_data.adaptation_config(
            {**trial, 'recipe': recipe}, tmp_path, tmp_path
        )

    scratch = config_of('scratch')
    assert scratch.load_from is None
    assert scratch.model.backbone.init_cfg is None
    assert len(scratch.train_dataloader.dataset.indices) == 10
    assert scratch.model.backbone.arch == ARCH
    usual = rates_of(scratch)
    assert len(set(usual.values())) == 1
    (rate,) = set(usual.values())
    low = config_of('low_rate')
    assert str(low.load_from).startswith(str(tmp_path / f'{task}_digits'))
    low.load_from = None
    assert set(rates_of(low).values()) == {rate / 4}
    frozen = rates_of(config_of('frozen_2'))
    assert 'backbone.network.4.0.norm1.weight' in frozen
    assert not any('backbone.network.2.' in name for name in frozen)
    assert not any('backbone.patch_embed' in name for name in frozen)
    layers = rates_of(config_of('layer_decay'))
    stem = next(n for n in layers if n.startswith('backbone.patch_embed'))
    assert layers[stem] == pytest.approx(rate * 0.7**6)
    heads = [n for n in layers if not n.startswith('backbone.')]
    assert {layers[n] for n in heads} == {rate}


def test_trials_of_small_data():
    """Pretrainings first; a seed of all tasks before the next seed."""
    tasks = ['segmentation', 'detection']
    trials = small_data.list_trials(tasks, 3)
    assert [t['task'] for t in trials[:2]] == tasks
    assert {t['recipe'] for t in trials[:2]} == {small_data.PRETRAINING}
    recipes = sum(len(small_data.TASKS[name].recipes) for name in tasks)
    assert len(trials) == 2 + 3 * 3 * recipes
    assert {t['task'] for t in trials[2 : 2 + 3 * recipes]} == set(tasks)
    assert [t['seed'] for t in trials[2:]] == [
        seed for seed in range(3) for _ in range(3 * recipes)
    ]


def test_table_of_small_data(tmp_path):
    assert small_data_table(tmp_path) == 'Not measured yet.\n'
    digits = dict(task='detection', recipe='digits', iterations=1)
    of_ten = dict(task='detection', recipe='scratch', pictures=10)
    metric = 'coco/bbox_mAP_50'
    records = [
        dict(trial=digits, result={metric: 0.5}),
        dict(trial={**of_ten, 'seed': 0}, result={metric: 0.1}),
        dict(trial={**of_ten, 'seed': 1}, result={}),
    ]
    write_lines(tmp_path / 'trials.jsonl', records)
    path = tmp_path / 'experiments/small_data.json'
    write_small_data(tmp_path, path, dict(torch='2'))
    table = small_data_table(tmp_path)
    assert '**classification**: not measured.\n' in table
    assert ', 2 seeds; box AP50 on the digits before: 50.0\n' in table
    row = '| from scratch | 5.0 ± 7.1 | not measured | not measured |\n'
    assert row in table


def test_trials_of_own_data():
    """The class folders come first: they start the others."""
    trials = own_data.list_trials(['voc', 'class_folders'])
    assert [t['kind'] for t in trials] == ['class_folders', 'voc']
    assert len(own_data.list_trials(list(KINDS))) == len(KINDS)


@pytest.mark.parametrize(
    ('task', 'masks'),
    [
        (CLASSIFICATION, False),
        (DETECTION, False),
        (DETECTION, True),
        (SEGMENTATION, False),
    ],
)
def test_own_configs_are_shortened(tmp_path, task, masks):
    data = prepared(tmp_path / 'data', task, train=10, masks=masks)
    made = decide(data, batch_size=4, from_scratch=True)
    path = tmp_path / 'config.py'
    write_config(data, made, path)
    config = own_data.shortened(path, 4, 'start.pth')
    model = build_model(config, 'meta')
    assert sum(p.numel() for p in model.parameters()) < 3e6
    assert config.model.backbone.arch == ARCH
    assert config.model.backbone.init_cfg.checkpoint == 'start.pth'
    assert config.optim_wrapper.optimizer.lr == made['rate']
    end = 12 if task == SEGMENTATION else 4  # three batches an epoch
    name = 'max_iters' if task == SEGMENTATION else 'max_epochs'
    assert config.train_cfg[name] == config.train_cfg.val_interval == end
    warmup, cosine = config.param_scheduler
    assert (warmup.end, cosine.T_max) == (1, end)
    steps = config.train_dataloader.dataset.pipeline
    assert [s.prob for s in steps if s.type == 'RandomFlip'] == [0.0]


def test_table_of_own_data(tmp_path):
    assert own_data_table(tmp_path) == 'Not measured yet.\n'
    result = dict(
        task='detection',
        algorithm='RetinaNet',
        found='3 pictures',
        lost='nothing',
        lines=58,
        metric='coco/bbox_mAP',
        value=0.25,
        iterations=200,
    )
    record = dict(trial=dict(kind='label_maps'), result=result)
    write_lines(tmp_path / 'trials.jsonl', [record])
    path = tmp_path / 'experiments/own_data.json'
    write_own_data(tmp_path, path, dict(torch='2'))
    row = (
        '| label maps | detection | RetinaNet | 3 pictures | nothing | 58 | '
        '200 | box AP 25.0 |\n'
    )
    assert row in own_data_table(tmp_path)


def test_letters(tmp_path, monkeypatch):
    """A small set is complete, and is not built again."""
    monkeypatch.setitem(SINGLES, 'train', 2)
    monkeypatch.setitem(SINGLES, 'val', 1)
    module = 'mmtransxnet.benchmark.experiments.letters.SCENES'
    monkeypatch.setattr(module, dict(train=3, val=2))
    build_letters(tmp_path)
    assert len(list(tmp_path.glob('single/train/*/*.png'))) == 10
    assert len(list(tmp_path.glob('scenes/labels/val/*.png'))) == 2
    content = json.loads((tmp_path / 'scenes/train.json').read_text())
    assert len(content['images']) == 3
    assert len(content['annotations']) >= 3
    picture = tmp_path / 'single/val/A/0000.png'
    picture.unlink()
    build_letters(tmp_path)
    assert not picture.exists()

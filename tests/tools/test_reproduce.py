"""Reproduce figures of tiny models with the command a user calls."""

import json
import os

import pytest
import torch
import yaml
from mmengine.config import Config

from tests.support.models import fill_by_name
from tests.support.paths import ROOT
from tests.support.processes import free_port
from tests.support.suite_configs import build, load

COCO = 'configs/detection/maskrcnn_transxnet_t.py'


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory, configs):
    """Work directories as trainings leave them, and a broken file."""
    folder = tmp_path_factory.mktemp('checkpoints')
    for task in ('classifier', 'segmentor'):
        model = fill_by_name(build(load(configs[task])))
        (folder / task).mkdir()
        path = folder / task / 'iter_4.pth'
        torch.save({'state_dict': model.state_dict()}, path)
        (folder / task / 'last_checkpoint').write_text(str(path))
    (folder / 'torn.pth').write_bytes(b'PK torn')
    return folder


@pytest.fixture(scope='module')
def reproduced(tmp_path_factory):
    return tmp_path_factory.mktemp('reproduced')


def write_metafile(path, configs, figures):
    """A digits metafile with a figure for each model."""
    settings = {
        'classifier': (str(configs['classifier']), 'top-1'),
        'torn': (str(configs['classifier']), 'top-1'),
        'segmentor': (str(configs['segmentor']), 'mIoU'),
        'coco': (COCO, 'box AP'),
    }
    models = []
    for name, figure in figures.items():
        config, metric = settings[name]
        models.append(
            {
                'Name': name,
                'Config': config,
                'Metadata': {'Tolerance': 0.2},
                'Results': [{'Metrics': {metric: figure}}],
            }
        )
    path.write_text(yaml.safe_dump({'Models': models}))
    return path


@pytest.fixture
def reproduce(tool, checkpoints, reproduced):
    def run(metafile, *flags, out=reproduced, **environment):
        status, log = tool(
            'benchmark/reproduce.py',
            '--metafiles',
            metafile,
            '--checkpoints',
            checkpoints,
            '--out',
            out,
            *flags,
            COCO_ROOT=str(out / 'no_coco'),
            **environment,
        )
        report = out / 'report.json'
        rows = (
            json.loads(report.read_text())['rows'] if report.exists() else []
        )
        return status, log, {row['name']: row for row in rows}

    return run


@pytest.fixture(scope='module')
def truth(tmp_path_factory, configs, checkpoints, digits):
    """The classifier's accuracy in percent, counted by hand."""
    from mmtransxnet.apis import Inferencer

    model = Inferencer(
        configs['classifier'], checkpoints / 'classifier/iter_4.pth', 'cpu'
    )
    hits = [
        int(result.prediction.pred_label) == int(result.source.parent.name)
        for result in model(digits / 'imagenet/val')
    ]
    return 100 * sum(hits) / len(hits)


def test_report_says_what_came_out(
    reproduce, configs, checkpoints, reproduced, truth
):
    figures = {'classifier': truth, 'segmentor': 99.0, 'torn': 1, 'coco': 44.5}
    metafile = write_metafile(reproduced / 'm.yml', configs, figures)
    status, log, rows = reproduce(metafile)
    assert status == 1, log
    states = {name: row['state'] for name, row in rows.items()}
    assert states == {
        'classifier': 'reproduced',
        'segmentor': 'differs',
        'torn': 'no weights',
        'coco': 'no data',
    }
    assert rows['classifier']['measured']['top-1'] == pytest.approx(truth)
    assert 'COCO_ROOT' in rows['coco']['reason']
    assert 'torn.pth cannot be read' in rows['torn']['reason']
    # All checks come before the first evaluation.
    assert log.index('coco: no data') < log.index('evaluating classifier')
    text = (reproduced / 'report.md').read_text()
    assert '1 reproduced, 1 differs, 1 no weights, 1 no data' in text
    assert 'not all figures were reproduced' in log

    # Corrected, and done before: compared again, not evaluated again.
    figures = {
        'classifier': truth,
        'segmentor': rows['segmentor']['measured']['mIoU'] + 0.19,
    }
    logs = {n: os.stat(reproduced / n / 'output.log') for n in figures}
    status, log, rows = reproduce(write_metafile(metafile, configs, figures))
    assert status == 0, log
    assert {row['state'] for row in rows.values()} == {'reproduced'}
    assert 'evaluating' not in log
    for name, before in logs.items():
        after = os.stat(reproduced / name / 'output.log')
        assert after.st_mtime_ns == before.st_mtime_ns


def test_several_processes(reproduce, configs, tmp_path, truth):
    metafile = write_metafile(
        tmp_path / 'm.yml', configs, {'classifier': truth}
    )
    flags = (
        '--launcher',
        'pytorch',
        '--gpus',
        '2',
    )
    status, log, rows = reproduce(
        metafile, *flags, out=tmp_path, PORT=free_port()
    )
    assert status == 0, log
    assert rows['classifier']['command'][1] == 'tools/dist_test.sh'


_SRUN = """#!/usr/bin/env bash
# The first of one task, here.
while [ "$1" != bash ]; do echo "$1" >> {record}; shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=node
exec "$@"
"""


def test_slurm(reproduce, configs, tmp_path, truth):
    """With a cluster of one process that stands in for Slurm."""
    programs = tmp_path / 'bin'
    programs.mkdir()
    record = tmp_path / 'srun.txt'
    for name, text in (
        ('srun', _SRUN.format(record=record)),
        ('scontrol', '#!/bin/sh\necho 127.0.0.1\n'),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    metafile = write_metafile(
        tmp_path / 'm.yml', configs, {'classifier': truth}
    )
    flags = ('--launcher', 'slurm', '--partition', 'gpu', '--gpus', '1')
    status, log, _ = reproduce(
        metafile,
        *flags,
        out=tmp_path,
        PATH=f'{programs}:{os.environ["PATH"]}',
        PORT='29572',
    )
    assert status == 0, log
    given = record.read_text().split()
    assert given[:4] == ['--partition', 'gpu', '--job-name', 'classifier']
    assert given[given.index('--ntasks') + 1] == '1'


def test_failed_evaluation_is_told_and_repeated(
    reproduce, configs, checkpoints, tmp_path, truth
):
    (checkpoints / 'torn').mkdir()
    metafile = write_metafile(tmp_path / 'm.yml', configs, {'torn': truth})
    # Readable, but of another model.
    (checkpoints / 'torn.pth').unlink()
    torch.save({'state_dict': {}}, checkpoints / 'torn.pth')
    status, log, rows = reproduce(metafile, out=tmp_path)
    assert status == 1, log
    assert rows['torn']['state'] == 'failed'
    assert 'does not fit' in rows['torn']['reason']


def test_training_commands(reproduce, configs, tmp_path):
    metafile = write_metafile(tmp_path / 'm.yml', configs, {'coco': 44.5})
    flags = ('--train', '--launcher', 'pytorch', '--gpus', '2')
    status, log, _ = reproduce(metafile, *flags, out=tmp_path)
    assert status == 0, log
    assert '# coco: the recipe has 8 GPUs' in log
    assert f'bash tools/dist_train.sh {COCO} 2 --auto-scale-lr' in log


def test_submitting_runs_the_training(reproduce, configs, tmp_path):
    """Which fails here, for want of data: told, with a status."""
    metafile = write_metafile(tmp_path / 'm.yml', configs, {'coco': 44.5})
    status, log, _ = reproduce(metafile, '--train', '--submit', out=tmp_path)
    assert status == 1, log
    assert 'error: the data is not as required' in log
    assert 'error: training failed: coco' in log


def test_every_published_config_has_a_recipe():
    """Whatever a metafile names can be trained by --train."""
    from mmtransxnet.benchmark.commands import published_gpus

    gpus = {}
    for folder in ('classification', 'detection', 'segmentation'):
        for path in (ROOT / 'configs' / folder).glob('*_t.py'):
            gpus[path.stem] = published_gpus(Config.fromfile(path))
    assert set(gpus.values()) == {8}, gpus
